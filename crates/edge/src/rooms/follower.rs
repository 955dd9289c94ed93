//! The waiting rooms that this edge has streams of: each is followed by a task, from a snapshot on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tonic::Code;
use tracing::{info, warn};
use tutti_feed::{Cursor, Event, follow_from};
use tutti_model::names;
use tutti_model::queue::RoomName;
use tutti_service::{ExposeSecret as _, SecretString};

use crate::following::status::{Liveness, Status};
use crate::http::upstream::is_passing;
use crate::metrics::Metrics;
use crate::rooms::client::Queue;
use crate::rooms::presence::{Presence, report};
use crate::rooms::state::{Applied, RoomView};

/// A room is told of at most once in this time.
const STEP: Duration = Duration::from_millis(50);
/// A room without streams is followed on for so long.
const LINGER: Duration = Duration::from_secs(30);
/// Between attempts at something that failed.
const RETRY: Duration = Duration::from_millis(500);

/// A room at one step.
#[derive(Debug)]
pub(crate) struct RoomStep {
    /// Counts the histories: under another one each ticket must be looked at anew.
    pub(crate) generation: u64,
    /// `None` if the room is gone.
    pub(crate) view: Option<RoomView>,
    /// The cursor's text.
    pub(crate) id: Arc<str>,
    pub(crate) status: Status,
}

/// A room that is being followed.
pub(crate) struct RoomFeed {
    pub(crate) name: Arc<str>,
    /// `None` until its first snapshot.
    pub(crate) steps: watch::Receiver<Option<Arc<RoomStep>>>,
    /// Whose streams are here.
    pub(crate) presence: Presence,
}

/// All rooms that this edge follows.
pub(crate) struct Rooms {
    pub(crate) queue: Queue,
    redis_url: SecretString,
    metrics: Metrics,
    /// Where the tasks run: streams live on threads of their own.
    runtime: Handle,
    followed: Mutex<HashMap<String, Arc<RoomFeed>>>,
}

impl Rooms {
    /// None yet. Needs a runtime.
    pub(crate) fn new(redis_url: SecretString, queue: Queue, metrics: Metrics) -> Self {
        Self { queue, redis_url, metrics, runtime: Handle::current(), followed: Mutex::default() }
    }

    /// A room, followed from now on if it was not.
    pub(crate) fn follow(self: &Arc<Self>, name: &str) -> Arc<RoomFeed> {
        let mut all = self.followed();
        if let Some(followed) = all.get(name) {
            return followed.clone();
        }
        let (steps, receiver) = watch::channel(None);
        let followed =
            Arc::new(RoomFeed { name: name.into(), steps: receiver, presence: Presence::default() });
        all.insert(name.to_owned(), followed.clone());
        self.metrics.rooms.inc();
        let (rooms, ours) = (self.clone(), followed.clone());
        self.runtime.spawn(async move {
            let conductor = RoomFollower {
                rooms: &rooms,
                room: &ours,
                steps,
                status: Status::Stale { since_ms: None },
                generation: 0,
            };
            tokio::select! {
                never = conductor.run() => match never {},
                never = report(&rooms.queue, &ours) => match never {},
                () = rooms.until_unused(&ours) => {}
            }
            rooms.metrics.rooms.dec();
        });
        followed
    }

    fn followed(&self) -> MutexGuard<'_, HashMap<String, Arc<RoomFeed>>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a room has had no stream for a while, and takes it off the list.
    async fn until_unused(&self, room: &Arc<RoomFeed>) {
        let mut idle_since = Instant::now();
        loop {
            sleep(LINGER / 10).await;
            let mut all = self.followed();
            // The list's and the task's own: nobody else has it, nor gets it while this is locked.
            if Arc::strong_count(room) > 2 || !room.presence.is_idle() {
                idle_since = Instant::now();
            } else if idle_since.elapsed() >= LINGER {
                all.remove(&*room.name);
                return;
            }
        }
    }
}

/// Follows one room.
struct RoomFollower<'a> {
    rooms: &'a Rooms,
    room: &'a RoomFeed,
    steps: watch::Sender<Option<Arc<RoomStep>>>,
    status: Status,
    generation: u64,
}

/// Why following ended.
enum Ended {
    /// A snapshot tells more: all got their places, or there is something that this version cannot read.
    Anew,
    /// The history is another.
    Reset,
}

impl RoomFollower<'_> {
    async fn run(mut self) -> std::convert::Infallible {
        loop {
            let Some(view) = self.snapshot().await else {
                self.generation += 1;
                self.publish(None);
                sleep(RETRY).await;
                continue;
            };
            match self.follow(view).await {
                Ok(Ended::Anew) => info!(room = &*self.room.name, "looking at the room anew"),
                Ok(Ended::Reset) => {
                    warn!(
                        room = &*self.room.name,
                        "the room's history is another; looking at its tickets anew"
                    );
                    self.generation += 1;
                }
                Err(error) => {
                    warn!(room = &*self.room.name, %error, "following the room");
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// The room as it stands; `None` if there is none.
    async fn snapshot(&mut self) -> Option<RoomView> {
        let mut said = false;
        loop {
            let name = RoomName { room: self.room.name.to_string() };
            let ask = self.rooms.queue.ask(name, |mut q, name| async move { q.snapshot(name).await });
            match ask.await {
                Ok(snapshot) => return RoomView::of_snapshot(snapshot),
                Err(status) if status.code() == Code::NotFound => return None,
                Err(status) => {
                    if !std::mem::replace(&mut said, true) {
                        warn!(room = &*self.room.name, why = status.message(), "no snapshot of the room");
                    }
                    let pause = if is_passing(&status) { RETRY } else { 4 * RETRY };
                    sleep(pause).await;
                    self.set_status(Status::Stale { since_ms: None });
                }
            }
        }
    }

    async fn follow(&mut self, mut view: RoomView) -> Result<Ended, tutti_feed::Error> {
        let url = self.rooms.redis_url.expose_secret();
        let feed = names::room_feed(&self.room.name);
        let mut following = follow_from(url, &feed, view.version, self.rooms.metrics.follow_rooms.clone())?;
        let mut watch = interval(Duration::from_secs(1));
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut liveness = Liveness::new(1);
        let time_ms = |view: &RoomView| Some((view.version.time_us / 1000) as i64);
        liveness.hear(0, time_ms(&view), Instant::now());
        let (mut published_at, mut dirty) = (Instant::now(), false);
        // A snapshot may be of any age only as a reset would make it: it is Redis's own.
        self.status = Status::Live;
        self.publish(Some(&view));
        loop {
            tokio::select! {
                event = following.next() => match event {
                    None | Some(Event::Reset { .. }) => return Ok(Ended::Reset),
                    Some(Event::Heads(_) | Event::HeldBack { .. }) => {}
                    Some(Event::Record { record, .. }) => {
                        dirty = true;
                        match view.apply(&record) {
                            Applied::Folded => liveness.hear(0, time_ms(&view), Instant::now()),
                            Applied::Opened => return Ok(Ended::Anew),
                            Applied::Unreadable => {
                                self.rooms.metrics.cannot_read(&feed, record.position.seq);
                                return Ok(Ended::Anew);
                            }
                        }
                    }
                },
                () = sleep_until(published_at + STEP), if dirty => {
                    self.status = Status::Live;
                    self.publish(Some(&view));
                    (published_at, dirty) = (Instant::now(), false);
                }
                _ = watch.tick() => {
                    let status = liveness.status(Instant::now());
                    // A closed room has no pulse.
                    let is_quiet = status != Status::Live && view.mode != tutti_model::Mode::Closed;
                    if is_quiet && self.status == Status::Live {
                        self.status = status;
                        self.publish(Some(&view));
                    }
                }
            }
        }
    }

    /// Tells that what was published last is no longer, or again, new.
    fn set_status(&mut self, status: Status) {
        self.status = status;
        let last = self.steps.borrow().clone();
        if let Some(last) = last.filter(|last| last.status != status) {
            self.steps.send_replace(Some(Arc::new(RoomStep {
                generation: last.generation,
                view: last.view.clone(),
                id: last.id.clone(),
                status,
            })));
        }
    }

    fn publish(&self, view: Option<&RoomView>) {
        let id = view.map_or_else(String::new, |view| Cursor(vec![Some(view.version)]).to_text());
        self.steps.send_replace(Some(Arc::new(RoomStep {
            generation: self.generation,
            view: view.cloned(),
            id: id.into(),
            status: self.status,
        })));
    }
}
