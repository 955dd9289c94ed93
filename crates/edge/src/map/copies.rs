//! Copies of the map: when they are made, who shares them, and how many may be held.
//!
//! A copy of the whole map is made once for each step and form, for all requests. A request shares the copy in
//! progress unless that copy is older than the step that the request found. Otherwise it joins the next copy, which
//! shows the step that is the newest when its turn comes. A copy of an area is made for one request. The whole
//! map and areas with many devices share one turn, which addresses get in rotation. Other areas have their own turns.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use actix_web::{rt, web};
use futures_util::future::{BoxFuture, FutureExt as _, Shared};
use tokio::time::timeout;

use crate::map::area::Area;
use crate::map::copy_bytes::{CopyBytes, MAX_BYTES};
use crate::map::snapshot::{Form, MapCopy};
use crate::map::tick::Tick;
use crate::metrics::Metrics;
use tutti_sse::limits::Owner;
use tutti_sse::turns::Turns;

/// Maximum bytes of copies that the clients of one address are receiving at the same time.
pub(crate) const MAX_BYTES_OF_AN_ADDRESS: usize = MAX_BYTES / 4;
/// Number of copies of areas with few devices that are made at the same time.
const SMALL_AT_ONCE: usize = 2;
/// Approximate number of copies of areas for which one address may wait at the same time.
const MAX_WAITING_OF_AN_ADDRESS: usize = 64;
/// Maximum time that a request waits for its turn at a copy of an area, or for a copy of the whole map.
const WAIT: Duration = Duration::from_secs(5);

/// Makes copies of the map, away from the threads that write streams. The bytes of a copy are counted for as long as
/// anything holds it, so that slow clients cannot make the edge hold more and more copies. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Copies(Arc<Inner>);

struct Inner {
    bytes: CopyBytes,
    /// Turns at copies of the whole map and of areas with many devices.
    large: Turns,
    /// Turns at copies of areas with few devices.
    small: Turns,
    /// The copy of the whole map that is being made or waits for its turn, by form.
    making: [Mutex<Option<Making>>; Form::COUNT],
}

/// Why there is no copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The address waits for as many copies as it may.
    Waiting,
    /// Clients are receiving as many copies as there may be, or the copy took too long.
    Busy,
}

/// A copy of the whole map that is being made or waits for its turn.
#[derive(Clone)]
struct Making {
    /// The number of the step that the copy shows. Set when its turn has come.
    step: Arc<OnceLock<u64>>,
    /// The copy, shared by all requests that join it. `None` if it was not made.
    made: Shared<BoxFuture<'static, Option<MapCopy>>>,
}

/// Removes a copy from those that requests may join, when dropped: also if the copy's task is cancelled.
struct Joinable {
    copies: Copies,
    form: Form,
    step: Arc<OnceLock<u64>>,
}

impl Drop for Joinable {
    fn drop(&mut self) {
        let mut making = self.copies.making(self.form);
        making.take_if(|making| Arc::ptr_eq(&making.step, &self.step));
    }
}

impl Copies {
    /// Creates the copies of one edge. At first none is made or held.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self(Arc::new(Inner {
            bytes: CopyBytes::new(metrics),
            large: Turns::new(1, metrics.sse.waiting_for("map_copy")),
            small: Turns::new(SMALL_AT_ONCE, metrics.sse.waiting_for("small_map_copy")),
            making: Default::default(),
        }))
    }

    /// Returns a copy of the whole map at about the newest step: workers see a step at slightly different times. Must
    /// be called on a worker's thread. `newest` returns the newest step.
    ///
    /// # Errors
    /// Returns [`Refusal::Busy`] if there is no room for the copy, if it takes too long, or if there is no step yet.
    pub(crate) async fn whole(
        &self,
        form: Form,
        newest: impl Fn() -> Option<Arc<Tick>> + 'static,
    ) -> Result<MapCopy, Refusal> {
        let found = newest().ok_or(Refusal::Busy)?;
        if let Some(made) = found.copy(form) {
            return Ok(made.clone());
        }
        let made = {
            let mut making = self.making(form);
            match &*making {
                Some(joined) if joined.step.get().is_none_or(|no| *no >= found.no) => joined.made.clone(),
                _ => making.insert(self.begin(form, newest)).made.clone(),
            }
        };
        timeout(WAIT, made).await.ok().flatten().ok_or(Refusal::Busy)
    }

    /// Starts a task that makes a copy of the whole map. The task goes on if all its requests are gone.
    fn begin(&self, form: Form, newest: impl Fn() -> Option<Arc<Tick>> + 'static) -> Making {
        let step = Arc::<OnceLock<u64>>::default();
        let (copies, joinable) = (self.clone(), Joinable { copies: self.clone(), form, step: step.clone() });
        let task = rt::spawn(async move {
            let turn = copies.0.large.take(Owner::All).await;
            let tick = newest()?;
            joinable.step.get_or_init(|| tick.no);
            let made = web::block(move || {
                let _turn = turn;
                tick.make_copy(form, &copies.0.bytes)
            });
            let made = made.await.ok().flatten();
            drop(joinable);
            made
        });
        Making { step, made: task.map(|made| made.ok().flatten()).boxed().shared() }
    }

    /// Returns a copy of an area at the newest step. `owner` is the address that waits for it.
    ///
    /// # Errors
    /// Returns [`Refusal::Waiting`] if the owner waits for as many copies as it may. Returns [`Refusal::Busy`] if there
    /// is no room for the copy, if the turn does not come in time, or if there is no step yet.
    pub(crate) async fn area(
        &self,
        area: Area,
        form: Form,
        owner: Owner,
        newest: impl Fn() -> Option<Arc<Tick>>,
    ) -> Result<MapCopy, Refusal> {
        let is_small = newest().is_some_and(|tick| tick.view.is_few(area, None));
        let turns = if is_small { &self.0.small } else { &self.0.large };
        if turns.waiting_of(&owner) >= MAX_WAITING_OF_AN_ADDRESS {
            return Err(Refusal::Waiting);
        }
        let turn = timeout(WAIT, turns.take(owner)).await.map_err(|_| Refusal::Busy)?;
        let tick = newest().ok_or(Refusal::Busy)?;
        let copies = self.clone();
        let made = web::block(move || {
            // The turn is held until the copy is made, even if the client has left.
            let _turn = turn;
            tick.make_copy_of(area, form, &copies.0.bytes)
        });
        made.await.ok().flatten().ok_or(Refusal::Busy)
    }

    /// Locks the copy of the whole map that is being made in this form.
    fn making(&self, form: Form) -> MutexGuard<'_, Option<Making>> {
        self.0.making[form.index()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::net::IpAddr;
    use std::rc::Rc;

    use futures_util::future::join_all;
    use prometheus_client::registry::Registry;
    use tutti_model::{Change, Fix, change};

    use super::*;
    use crate::map::snapshot::Format;
    use crate::map::state::MapState;
    use crate::map::state::tests::{map, record};
    use crate::map::tick::Step;

    const T0: u64 = 1_700_000_000_000_000;
    const JSON: Form = Form { format: Format::Json, gzip: false };
    const FORMS: [Form; Form::COUNT] = [
        JSON,
        Form { format: Format::Json, gzip: true },
        Form { format: Format::GeoJson, gzip: false },
        Form { format: Format::GeoJson, gzip: true },
    ];

    /// A map that moves by steps. The newest step is shared.
    struct Moving {
        map: MapState,
        newest: Rc<RefCell<Option<Arc<Tick>>>>,
        metrics: Metrics,
        copies: Copies,
    }

    impl Moving {
        fn new() -> Self {
            let metrics = Metrics::new(&mut Registry::default());
            let copies = Copies::new(&metrics);
            let mut moving = Self { map: map(1), newest: Rc::default(), metrics, copies };
            moving.step();
            moving
        }

        /// Adds a device to the map, in a step of its own.
        fn step(&mut self) {
            let no = self.newest.borrow().as_ref().map_or(0, |tick| tick.no) + 1;
            let fix = Fix {
                media_id: format!("device-{no}"),
                timestamp_ms: (T0 / 1000) as i64,
                latitude: 47.37,
                longitude: 8.54,
                ..Fix::default()
            };
            let change = Change { change: Some(change::Change::Fix(fix)) };
            self.map.apply(0, &record(no, T0 + no, vec![change]));
            *self.newest.borrow_mut() = Some(Arc::new(Tick::new(&mut self.map, Step::numbered(no))));
        }

        fn newest(&self) -> impl Fn() -> Option<Arc<Tick>> + 'static {
            let newest = self.newest.clone();
            move || newest.borrow().clone()
        }

        /// Starts a request for the whole map.
        fn ask(&self, form: Form) -> rt::task::JoinHandle<Result<MapCopy, Refusal>> {
            let (copies, newest) = (self.copies.clone(), self.newest());
            rt::spawn(async move { copies.whole(form, newest).await })
        }

        /// Returns the number of copies of the whole map or of areas that were made.
        fn made(&self, part: &'static str) -> u64 {
            self.metrics.map_copies.get_or_create(&crate::metrics::Copied { part }).get()
        }
    }

    fn address(n: u8) -> Owner {
        Owner::Address(IpAddr::from([192, 0, 2, n]))
    }

    /// Lets all tasks run until they wait.
    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    /// Returns the number of devices in a copy.
    fn devices(copy: &MapCopy) -> usize {
        String::from_utf8_lossy(&copy.bytes).matches(r#""mediaId":"#).count()
    }

    #[actix_web::test]
    async fn all_that_ask_for_the_whole_map_meanwhile_share_one_copy_of_the_newest_step() {
        let mut moving = Moving::new();
        let turn = moving.copies.0.large.take(Owner::All).await;
        let mut asked: Vec<_> = (0..20).map(|_| moving.ask(JSON)).collect();
        settle().await;
        moving.step();
        asked.extend((0..20).map(|_| moving.ask(JSON)));
        settle().await;
        assert_eq!(moving.made("whole"), 0);
        drop(turn);
        let copies: Vec<MapCopy> =
            join_all(asked).await.into_iter().map(|made| made.unwrap().unwrap()).collect();
        assert!(copies.iter().all(|copy| copy.bytes.as_ptr() == copies[0].bytes.as_ptr()));
        assert_eq!((moving.made("whole"), devices(&copies[0])), (1, 2));

        moving.ask(JSON).await.unwrap().unwrap();
        assert_eq!(moving.made("whole"), 1, "the step has its copy");
        moving.step();
        assert_eq!(devices(&moving.ask(JSON).await.unwrap().unwrap()), 3);
        assert_eq!(moving.made("whole"), 2);
        assert!(moving.copies.0.making.iter().all(|making| making.lock().unwrap().is_none()));
    }

    /// The map moves on while the requests wait, as it does if a copy takes longer than a step.
    #[actix_web::test]
    async fn requests_that_wait_share_a_copy_also_where_the_map_moves_on_meanwhile() {
        let mut moving = Moving::new();
        let turn = moving.copies.0.large.take(Owner::All).await;
        let asked: Vec<_> = (0..20).map(|_| moving.ask(JSON)).collect();
        settle().await;
        drop(turn);
        let mut copies = Vec::new();
        for made in asked {
            copies.push(made.await.unwrap().unwrap());
            moving.step();
        }
        assert!(copies.iter().all(|copy| copy.bytes.as_ptr() == copies[0].bytes.as_ptr()));
        assert_eq!((moving.made("whole"), devices(&copies[0])), (1, 1));
    }

    #[actix_web::test]
    async fn a_request_that_found_a_later_step_than_the_one_being_copied_gets_a_later_copy() {
        let mut moving = Moving::new();
        let first = moving.ask(JSON);
        settle().await;
        let begun = moving.copies.making(JSON).as_ref().and_then(|making| making.step.get().copied());
        moving.step();
        let second = moving.ask(JSON);
        let (first, second) = (first.await.unwrap().unwrap(), second.await.unwrap().unwrap());
        assert!(begun.is_none_or(|no| no == 1));
        assert_eq!((devices(&first), devices(&second), moving.made("whole")), (1, 2, 2));
    }

    #[actix_web::test]
    async fn each_form_is_copied_once_and_permit_as_it_is_held() {
        let mut moving = Moving::new();
        (0..40).for_each(|_| moving.step());
        let mut held = 0;
        let mut copies = Vec::new();
        for form in FORMS.into_iter().chain(FORMS) {
            copies.push(moving.ask(form).await.unwrap().unwrap());
            let copy = copies.last().unwrap();
            assert_eq!(copy.gzip, form.gzip);
            if copies.len() <= FORMS.len() {
                held += copy.bytes.len();
            }
        }
        assert_eq!(moving.made("whole"), FORMS.len() as u64);
        assert!(copies[1].bytes.len() * 3 < copies[0].bytes.len());
        assert_eq!(moving.copies.0.bytes.available(), MAX_BYTES - held);
        copies.clear();
        moving.step();
        assert_eq!(moving.copies.0.bytes.available(), MAX_BYTES, "nothing is left of an old step");
    }

    #[actix_web::test]
    async fn an_area_with_few_devices_is_answered_while_whole_maps_wait() {
        let moving = Moving::new();
        let turn = moving.copies.0.large.take(Owner::All).await;
        let asked: Vec<_> = FORMS.into_iter().map(|form| moving.ask(form)).collect();
        settle().await;
        let area = Area::parse("8.5,47.35,8.6,47.4").unwrap();
        let copy = moving.copies.area(area, JSON, address(2), moving.newest()).await.unwrap();
        assert_eq!((devices(&copy), moving.made("area"), moving.made("whole")), (1, 1, 0));
        drop(turn);
        join_all(asked).await.into_iter().for_each(|made| assert!(made.unwrap().is_ok()));
    }

    #[actix_web::test]
    async fn an_address_waits_for_so_many_copies_of_areas_and_no_more() {
        let moving = Moving::new();
        let small = &moving.copies.0.small;
        let turns = (small.take(address(1)).await, small.take(address(1)).await);
        let area = Area::parse("8.5,47.35,8.6,47.4").unwrap();
        let ask = |of: u8| {
            let (copies, newest) = (moving.copies.clone(), moving.newest());
            rt::spawn(async move { copies.area(area, JSON, address(of), newest).await })
        };
        let mut asked: Vec<_> = (0..MAX_WAITING_OF_AN_ADDRESS).map(|_| ask(1)).collect();
        settle().await;
        assert_eq!(ask(1).await.unwrap().err(), Some(Refusal::Waiting));
        asked.push(ask(2));
        settle().await;
        drop(turns);
        join_all(asked).await.into_iter().for_each(|made| assert!(made.unwrap().is_ok()));
    }
}
