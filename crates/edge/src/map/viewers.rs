//! A worker's streams of the map: viewers.
//!
//! Those that are at the newest step lie in one list; each step's bytes, encoded once for all who look at the
//! same, are written to each of them without waiting. A viewer whose socket would block, that is new, or that
//! resumes, leaves the list and becomes a task, until it has been brought to the newest step.

use std::cell::LazyCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::rt::spawn;
use bytes::Bytes;
use tokio::time::Instant;

use crate::map::catch_up::{Approach, NextWrite, Shown, View};
use crate::map::tick::Tick;
use crate::sse::frame::{Events, Frame};
use crate::sse::hub::Hub;
use crate::sse::limits::Whose;
use crate::sse::stream::{End, Stream, Written};
use crate::sse::turns::Turn;
use tutti_model::events::VIEW;

/// What a client is to be shown of the map.
pub(crate) struct Look {
    /// What it was shown before.
    pub(crate) shown: Shown,
    pub(crate) view: View,
    /// The client's network, whose viewers share their turns.
    pub(crate) address: Option<IpAddr>,
}

/// Who looks at the map.
pub(crate) struct Viewer {
    stream: Stream,
    view: View,
    address: Option<IpAddr>,
}

impl Hub {
    /// Takes a viewer's stream of the map over, its response head written.
    pub(crate) fn admit_viewer(self: Rc<Self>, mut stream: Stream, hello: Bytes, look: Look) {
        let Look { shown, view, address } = look;
        let first = match view.area() {
            None => hello,
            Some(area) => {
                let told = Events::default().event(VIEW, &area.json()).frame();
                [hello, stream.encode(&told)].concat().into()
            }
        };
        self.serve(Viewer { stream, view, address }, first, Approach::new(shown, None, view));
    }

    /// One step: its bytes to all that are at the step before.
    pub(crate) fn step(self: &Rc<Self>, tick: &Arc<Tick>) {
        let before = self.current.replace(Some(tick.clone()));
        self.stepped.notify_waiters();
        let mut live = self.live.borrow_mut();
        let follows = before.as_ref().is_some_and(|b| b.no + 1 == tick.no && b.generation == tick.generation);
        if !follows {
            for viewer in live.drain(..) {
                let nothing = Approach::new(Shown::Nothing, None, viewer.view);
                let approach = before.as_ref().map_or(nothing, |b| from(b, viewer.view));
                self.clone().serve(viewer, Bytes::new(), approach);
            }
        } else if let Some(before) = before {
            self.write_to_all(&mut live, tick, |viewer| self.news(viewer, &before, tick));
        }
    }

    /// What a step brings to one viewer: the same bytes for all who look at the whole world, and put
    /// together out of shared frames for others.
    fn news(&self, viewer: &mut Viewer, before: &Tick, tick: &Tick) -> Option<Bytes> {
        let Viewer { stream, view, .. } = viewer;
        if *view == View::World {
            return tick.live.as_ref().map(|frame| stream.encode(frame));
        }
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        // Each has one event, and the id is that of the last.
        let frames = match *view {
            View::World => Vec::new(),
            View::Area(area) => tick.tiles.frames(area, &self.metrics),
            View::Clusters(area) => {
                let clusters = tick.clusters(before, area.zoom());
                area.each().filter_map(|tile| clusters.get(&tile)).collect()
            }
        };
        if let Some((last, others)) = frames.split_last() {
            let id = Frame::id_line(&view.id(&tick.id));
            for frame in others.iter().copied().chain([&id, last]) {
                scratch.extend_from_slice(&stream.encode(frame));
            }
        }
        if let Some(status) = &tick.status_frame {
            scratch.extend_from_slice(&stream.encode(status));
        }
        (!scratch.is_empty()).then(|| Bytes::copy_from_slice(&scratch))
    }

    /// Writes to each viewer what there is for it.
    fn write_to_all(
        self: &Rc<Self>,
        live: &mut Vec<Viewer>,
        tick: &Tick,
        what: impl Fn(&mut Viewer) -> Option<Bytes>,
    ) {
        let now = Instant::now();
        let (mut frames, mut bytes, mut at) = (0, 0, 0);
        while at < live.len() {
            let Some(ours) = what(&mut live[at]) else {
                at += 1;
                continue;
            };
            let (viewer, length) = (&mut live[at], ours.len() as u64);
            match viewer.stream.try_write(ours) {
                Written::All => {
                    viewer.stream.last_write = now;
                    frames += 1;
                    bytes += length;
                    at += 1;
                }
                Written::Rest(rest) => {
                    self.metrics.fell_behind.inc();
                    let viewer = live.swap_remove(at);
                    let approach = from(tick, viewer.view);
                    self.clone().serve(viewer, rest, approach);
                }
                Written::Gone => {
                    live.swap_remove(at);
                    self.ended(End::Left);
                }
            }
        }
        self.metrics.deliveries.inc_by(frames);
        self.metrics.delivered_bytes.inc_by(bytes);
    }

    /// Once a second: ends what is over, finds who left, sends heartbeats.
    pub(crate) fn sweep_viewers(self: &Rc<Self>) {
        let now = Instant::now();
        let mut live = self.live.borrow_mut();
        let mut at = 0;
        while at < live.len() {
            if live[at].stream.is_over() {
                let end = self.close(live.swap_remove(at).stream);
                self.ended(end);
            } else {
                at += 1;
            }
        }
        let heartbeat = self.config.heartbeat;
        if let Some(tick) = self.current() {
            // The id moves along, so that a client that comes back after a quiet time is not taken for one from
            // long ago.
            let of = |id: &str| Events::default().heartbeat().id(id).frame();
            let world = LazyCell::new(|| of(&tick.id));
            self.write_to_all(&mut live, &tick, |Viewer { stream, view, .. }| {
                (now - stream.last_write >= heartbeat).then(|| match view {
                    View::World => stream.encode(&world),
                    _ => stream.encode(&of(&view.id(&tick.id))),
                })
            });
        }
    }

    /// Gives each viewer an end within the drain window. Those in tasks see it when they come back.
    pub(crate) fn drain_viewers(&self) {
        for viewer in self.live.borrow_mut().iter_mut() {
            viewer.stream.drain(self.drain_end());
        }
    }

    /// Brings a stream to the newest step, as a task of its own, and back into the list.
    fn serve(self: Rc<Self>, viewer: Viewer, rest: Bytes, approach: Approach) {
        spawn(async move {
            self.metrics.behind.inc();
            let served = self.bring(viewer, rest, approach).await;
            self.metrics.behind.dec();
            if let Err(end) = served {
                self.ended(end);
            }
        });
    }

    async fn bring(&self, viewer: Viewer, rest: Bytes, mut approach: Approach) -> Result<(), End> {
        let Viewer { mut stream, view, address } = viewer;
        self.write(&mut stream, rest).await?;
        // Kept for a whole pass: if walks took turns with each chunk, a herd of them would each be
        // overtaken by the next step before its end, and begin again for ever. Kept for no more than
        // a pass: one that is overtaken all the same must let the others by. Short walks have turns of
        // their own, so that they never wait for walks over the whole map; a walk that has become long
        // while it waited takes one of those.
        let mut turn = None;
        loop {
            if turn.is_none() {
                let is_short = approach.is_short(self.current().as_deref());
                turn = self.turn(&mut stream, is_short, address).await?;
                if is_short && turn.is_some() && !approach.is_short(self.current().as_deref()) {
                    turn = None;
                    continue;
                }
            }
            if self.draining.is_cancelled() {
                stream.drain(self.drain_end());
            }
            if stream.ends_at <= Instant::now() {
                return Err(stream.close(self.retry()));
            }
            match approach.next(self.current().as_deref(), Instant::now(), &self.metrics) {
                NextWrite::Arrived => {
                    self.enlist(Viewer { stream, view, address });
                    return Ok(());
                }
                NextWrite::Write(events) if events.is_empty() => {}
                NextWrite::Write(events) => {
                    let bytes = stream.encode(&events.frame());
                    match self.deliver(&mut stream, bytes) {
                        Written::All if self.current().is_some_and(|tick| approach.is_at(&tick)) => {
                            self.enlist(Viewer { stream, view, address });
                            return Ok(());
                        }
                        Written::All if approach.is_between_passes() => turn = None,
                        Written::All => {}
                        Written::Gone => return Err(End::Left),
                        Written::Rest(rest) => {
                            turn = None;
                            self.write(&mut stream, rest).await?;
                        }
                    }
                }
                NextWrite::Wait(until) => {
                    turn = None;
                    tokio::select! {
                        () = self.stepped.notified() => {}
                        () = self.pause(&mut stream, until) => {}
                    }
                    self.keep_alive(&mut stream).await?;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Puts a stream among those that are at the current step. There must be no await since that
    /// was read: no other can have come.
    fn enlist(&self, viewer: Viewer) {
        self.live.borrow_mut().push(viewer);
    }

    /// Waits for a turn. Returns `None` if the stream's time is over first.
    async fn turn(
        &self,
        stream: &mut Stream,
        is_short: bool,
        address: Option<IpAddr>,
    ) -> Result<Option<Turn>, End> {
        let turns = if is_short { &self.short_replays } else { &self.replays };
        let whose = address.map_or(Whose::All, Whose::Address);
        self.meanwhile(stream, async || turns.take(whose.clone()).await).await
    }
}

/// From this step on.
fn from(tick: &Tick, view: View) -> Approach {
    Approach::new(Shown::UpTo(tick.cursor.clone(), Some(tick.generation)), Some(tick.status), view)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use actix_web::rt::task::JoinHandle;
    use prometheus_client::registry::Registry;
    use tokio::sync::broadcast;
    use tutti_model::{Change, Fix, change};
    use tutti_service::CancellationToken;

    use super::*;
    use crate::config::Streams;
    use crate::map::area::Area;
    use crate::map::state::tests::{map, record};
    use crate::map::tick::Step;
    use crate::metrics::Metrics;
    use crate::sse::coding::Coding;
    use crate::sse::hub::What;
    use crate::sse::pipe::pipe;
    use crate::sse::stream::Socket;

    const T0: u64 = 1_700_000_000_000_000;

    fn fix_at(id: &str, latitude: f64, longitude: f64) -> Change {
        let fix = Fix {
            media_id: id.to_owned(),
            timestamp_ms: (T0 / 1000) as i64,
            latitude,
            longitude,
            ..Fix::default()
        };
        Change { change: Some(change::Change::Fix(fix)) }
    }

    /// A worker's hub, at a step with a thousand devices, three of them in a district.
    fn hub() -> Rc<Hub> {
        let (ticks, _) = broadcast::channel(16);
        let (letters, _) = broadcast::channel(16);
        let hour = Duration::from_secs(3600);
        let config = Streams {
            max: 100,
            max_per_address: 0,
            max_per_user: 0,
            compress: false,
            heartbeat: hour,
            life: hour,
            stall: hour,
            drain: hour,
        };
        let metrics = Metrics::new(&mut Registry::default());
        let hub =
            Hub::start(config, metrics, ticks.subscribe(), letters.subscribe(), CancellationToken::new());
        let mut map = map(1);
        let mut fixes: Vec<Change> =
            (0..1000).map(|n| fix_at(&format!("far-{n}"), -30.0, f64::from(n) / 10.0)).collect();
        fixes.extend((0..3).map(|n| fix_at(&format!("near-{n}"), 47.37, 8.54)));
        map.apply(0, &record(1, T0, fixes));
        hub.step(&Arc::new(Tick::new(&mut map, Step::numbered(1))));
        hub
    }

    /// Opens a stream whose client reads all that comes, and notes its name once it was shown everything.
    fn open(
        hub: &Rc<Hub>,
        name: &'static str,
        address: u8,
        view: View,
        order: &Rc<RefCell<Vec<&'static str>>>,
    ) -> JoinHandle<()> {
        // More than a client is shown, so that none waits for its own.
        let (writer, reader) = pipe(1 << 20);
        let (now, hour) = (Instant::now(), Duration::from_secs(3600));
        let stream = Stream {
            socket: Socket::Part(writer),
            chunked: false,
            coding: Coding::Identity,
            sum: None,
            ends_at: now + hour,
            end: End::Life,
            last_write: now,
            drained: false,
            _counted: None,
        };
        let look = Look { shown: Shown::Nothing, view, address: Some([192, 0, 2, address].into()) };
        hub.clone().take_over(stream, What::Map(look), None);
        let last_id = format!("id: {}\n", view.id(&hub.current().unwrap().id));
        let order = order.clone();
        spawn(async move {
            let mut text: Vec<u8> = Vec::new();
            let mut looked_at = 0;
            while !text[looked_at..].windows(last_id.len()).any(|bytes| bytes == last_id.as_bytes()) {
                looked_at = text.len().saturating_sub(last_id.len());
                reader.readable().await;
                let part = reader.try_take().unwrap();
                assert!(!part.is_empty(), "{name} is shown all");
                text.extend_from_slice(&part);
            }
            order.borrow_mut().push(name);
        })
    }

    #[actix_web::test]
    async fn viewers_of_one_address_that_walk_over_the_whole_map_delay_no_other_address() {
        let (hub, order) = (hub(), Rc::default());
        let mut clients: Vec<_> = (0..20).map(|_| open(&hub, "crowd", 1, View::World, &order)).collect();
        let district = Area::parse("8.5,47.35,8.6,47.4").unwrap();
        clients.push(open(&hub, "district", 2, View::Area(district), &order));
        clients.push(open(&hub, "whole map", 3, View::World, &order));
        for client in clients {
            client.await.unwrap();
        }
        let order = order.borrow();
        let place = |name| order.iter().position(|other| *other == name).unwrap();
        // Two walks over the whole map have begun before either asks, and may end before.
        assert!(place("district") <= 2, "{order:?}");
        assert!(place("whole map") <= 5, "{order:?}");
        assert_eq!(hub.metrics.waiting_for("replay").get(), 0);
    }

    #[actix_web::test]
    async fn a_district_does_not_wait_for_whole_maps_of_its_own_address() {
        let (hub, order) = (hub(), Rc::default());
        let mut clients: Vec<_> = (0..20).map(|_| open(&hub, "crowd", 1, View::World, &order)).collect();
        let district = Area::parse("8.5,47.35,8.6,47.4").unwrap();
        clients.push(open(&hub, "district", 1, View::Area(district), &order));
        for client in clients {
            client.await.unwrap();
        }
        let place = order.borrow().iter().position(|name| *name == "district").unwrap();
        assert!(place <= 2, "{:?}", order.borrow());
    }
}
