//! One worker's streams of the map.
//!
//! Streams that are at the newest step are in one list. The bytes of each step are encoded once for all clients that
//! look at the same part of the map, and written to each stream without waiting. A stream that is new, that resumes,
//! or whose socket would block is a task of its own until it is at the newest step.

use std::cell::{LazyCell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::spawn_local;
use tokio::time::Instant;
use tutti_sse::events::Events;
use tutti_sse::frame::Frame;
use tutti_sse::hub::{Hub, Job};
use tutti_sse::limits::Owner;
use tutti_sse::live::{LiveList, Member};
use tutti_sse::stream::{CloseReason, Stream, WriteOutcome};
use tutti_sse::turns::{Turn, Turns};

use crate::following::next_write::NextWrite;
use crate::map::catch_up::CatchUp;
use crate::map::shown::{Shown, View};
use crate::map::tick::Tick;
use crate::metrics::Metrics;
use tutti_model::events::VIEW;

/// Number of replays of the whole map that run at the same time in one worker, and number of replays of few devices.
/// Other replays wait for their turn, which addresses get one after the other. A replay that waits for its socket has
/// no turn.
const TURNS: usize = 2;

/// What a client asks to see of the map.
pub(crate) struct Subscription {
    /// What the client was shown before.
    pub(crate) shown: Shown,
    /// The part of the map that the stream shows.
    pub(crate) view: View,
    /// The client's network, whose streams share their turns.
    pub(crate) address: Option<IpAddr>,
}

/// A stream of the map, and the part of the map that it shows.
struct Viewer {
    stream: Stream,
    view: View,
    address: Option<IpAddr>,
}

impl Member for Viewer {
    fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }
}

/// One worker's streams of the map.
pub(crate) struct MapStreams {
    hub: Rc<Hub>,
    metrics: Metrics,
    /// Streams that are at the current step.
    live: RefCell<LiveList<Viewer>>,
    /// The newest step. `None` before the first one.
    current: RefCell<Option<Arc<Tick>>>,
    /// Wakes tasks that wait for a step.
    stepped: Notify,
    /// Buffer in which the bytes of one step for one stream are put together.
    scratch: RefCell<Vec<u8>>,
    /// Turns at replays that walk over the whole map.
    replays: Turns,
    /// Turns at replays of few devices.
    short_replays: Turns,
}

impl MapStreams {
    /// Starts the streams of the map in one worker. They show the steps that `ticks` brings.
    pub(crate) fn start(
        hub: &Rc<Hub>,
        metrics: Metrics,
        mut ticks: broadcast::Receiver<Arc<Tick>>,
    ) -> Rc<Self> {
        let turns = |what| Turns::new(TURNS, metrics.sse.waiting_for(what));
        let streams = Rc::new(Self {
            replays: turns("replay"),
            short_replays: turns("short_replay"),
            metrics,
            live: RefCell::default(),
            current: RefCell::default(),
            stepped: Notify::new(),
            scratch: RefCell::default(),
            hub: hub.clone(),
        });
        hub.add(streams.clone());
        let receiver = streams.clone();
        spawn_local(async move {
            loop {
                match ticks.recv().await {
                    Ok(tick) => receiver.step(&tick),
                    // The next tick does not follow the current one. Replays bring the streams there.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
        streams
    }

    /// Returns the newest step, or `None` before the first one.
    pub(crate) fn current(&self) -> Option<Arc<Tick>> {
        self.current.borrow().clone()
    }

    /// Takes a new stream over: writes `hello` and, for an area, the event that says what it covers, and then brings
    /// the stream to the newest step.
    pub(crate) fn admit(self: Rc<Self>, mut stream: Stream, hello: Bytes, asked: Subscription) {
        let Subscription { shown, view, address } = asked;
        let first = match view.area() {
            None => hello,
            Some(area) => {
                let covered = Events::default().event(VIEW, &area.json()).frame();
                [hello, stream.encode(&covered)].concat().into()
            }
        };
        self.serve(Viewer { stream, view, address }, first, CatchUp::new(shown, None, view));
    }

    /// Writes one step to all streams that are at the step before. If the step does not follow the current one,
    /// replays bring all streams there.
    fn step(self: &Rc<Self>, tick: &Arc<Tick>) {
        let before = self.current.replace(Some(tick.clone()));
        self.stepped.notify_waiters();
        let follows = before.as_ref().is_some_and(|b| b.no + 1 == tick.no && b.generation == tick.generation);
        if !follows {
            let viewers = self.live.borrow_mut().take_all();
            for viewer in viewers {
                let nothing = CatchUp::new(Shown::Nothing, None, viewer.view);
                let catch_up = before.as_ref().map_or(nothing, |b| from(b, viewer.view));
                self.serve(viewer, Bytes::new(), catch_up);
            }
        } else if let Some(before) = before {
            self.write(tick, |viewer| self.news(viewer, &before, tick));
        }
    }

    /// Returns the bytes of a step for one stream. Streams of the whole world share the same bytes. For streams of an
    /// area shared frames are put together.
    fn news(&self, viewer: &mut Viewer, before: &Tick, tick: &Tick) -> Option<Bytes> {
        let Viewer { stream, view, .. } = viewer;
        if *view == View::World {
            return tick.live.as_ref().map(|frame| stream.encode(frame));
        }
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        // Each frame has one event. The id belongs to the last of them.
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

    /// Writes the bytes that `bytes_for` returns to each stream that is at the step `tick`. A stream whose socket
    /// would block leaves the list and catches up in a task.
    fn write(self: &Rc<Self>, tick: &Tick, bytes_for: impl Fn(&mut Viewer) -> Option<Bytes>) {
        let removed = self.live.borrow_mut().write(&self.hub, bytes_for);
        for (viewer, outcome) in removed {
            match outcome {
                WriteOutcome::Partial(rest) => {
                    let catch_up = from(tick, viewer.view);
                    self.serve(viewer, rest, catch_up);
                }
                _ => self.metrics.sse.ended(CloseReason::Left),
            }
        }
    }

    /// Starts a task that writes `rest`, brings a stream to the newest step, and puts it into the list.
    fn serve(self: &Rc<Self>, viewer: Viewer, rest: Bytes, catch_up: CatchUp) {
        let streams = self.clone();
        self.hub.spawn_behind(async move { streams.bring(viewer, rest, catch_up).await });
    }

    /// Writes `rest` to a stream, brings the stream to the newest step, and puts it into the list.
    ///
    /// # Errors
    /// Returns the reason if the stream ends first.
    async fn bring(&self, viewer: Viewer, rest: Bytes, mut catch_up: CatchUp) -> Result<(), CloseReason> {
        let Viewer { mut stream, view, address } = viewer;
        self.hub.write(&mut stream, rest).await?;
        // A turn is kept for a whole replay. If replays took turns with each chunk, each of a crowd would be
        // overtaken by the next step before its end, and begin again for ever. A turn is not kept for longer:
        // a replay that is overtaken all the same lets the others pass. Short replays have turns of their
        // own, so that they never wait for replays of the whole map. A replay that has become long while it
        // waited takes one of the turns for the whole map.
        let mut turn = None;
        loop {
            if turn.is_none() {
                let is_short = catch_up.is_short(self.current().as_deref());
                turn = self.turn(&mut stream, is_short, address).await?;
                if is_short && turn.is_some() && !catch_up.is_short(self.current().as_deref()) {
                    turn = None;
                    continue;
                }
            }
            if self.hub.is_due(&mut stream) {
                return Err(self.hub.close(stream));
            }
            match catch_up.next(self.current().as_deref(), Instant::now(), &self.metrics) {
                NextWrite::Arrived => {
                    self.enlist(Viewer { stream, view, address });
                    return Ok(());
                }
                NextWrite::Write(events) if events.is_empty() => {}
                NextWrite::Write(events) => {
                    let bytes = stream.encode(&events.frame());
                    match self.hub.deliver(&mut stream, bytes) {
                        WriteOutcome::Complete
                            if self.current().is_some_and(|tick| catch_up.is_at(&tick)) =>
                        {
                            self.enlist(Viewer { stream, view, address });
                            return Ok(());
                        }
                        WriteOutcome::Complete if catch_up.is_between_passes() => turn = None,
                        WriteOutcome::Complete => {}
                        WriteOutcome::Closed => return Err(CloseReason::Left),
                        WriteOutcome::Partial(rest) => {
                            turn = None;
                            self.hub.write(&mut stream, rest).await?;
                        }
                    }
                }
                NextWrite::Wait(until) => {
                    turn = None;
                    tokio::select! {
                        () = self.stepped.notified() => {}
                        () = self.hub.pause(&mut stream, until) => {}
                    }
                    self.hub.keep_alive(&mut stream, "").await?;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Puts a stream into the list of those that are at the current step. There must be no await between reading the
    /// current step and this call, so that no other step can have come.
    fn enlist(&self, viewer: Viewer) {
        self.live.borrow_mut().push(viewer);
    }

    /// Waits for a turn while the stream is kept alive. Returns `None` if the stream's time is over first.
    ///
    /// # Errors
    /// Returns the reason if the stream ends first.
    async fn turn(
        &self,
        stream: &mut Stream,
        is_short: bool,
        address: Option<IpAddr>,
    ) -> Result<Option<Turn>, CloseReason> {
        let turns = if is_short { &self.short_replays } else { &self.replays };
        let owner = address.map_or(Owner::All, Owner::Address);
        self.hub.meanwhile(stream, async || turns.take(owner.clone()).await).await
    }
}

impl Job for MapStreams {
    fn sweep(self: Rc<Self>) {
        let over = self.live.borrow_mut().remove_ended();
        for viewer in over {
            let reason = self.hub.close_swept(viewer.stream);
            self.metrics.sse.ended(reason);
        }
        let Some(tick) = self.current() else { return };
        // A heartbeat carries the newest id, so that the cursor of a client that comes back after a quiet time
        // is not too old.
        let heartbeat = |id: &str| Events::default().heartbeat().id(id).frame();
        let world = LazyCell::new(|| heartbeat(&tick.id));
        self.write(&tick, |Viewer { stream, view, .. }| {
            self.hub.is_heartbeat_due(stream).then(|| match view {
                View::World => stream.encode(&world),
                _ => stream.encode(&heartbeat(&view.id(&tick.id))),
            })
        });
    }

    fn drain(&self) {
        self.live.borrow_mut().drain(&self.hub);
    }
}

/// Returns the progress of a stream that is at the step `tick`.
fn from(tick: &Tick, view: View) -> CatchUp {
    CatchUp::new(Shown::UpTo(tick.cursor.clone(), Some(tick.generation)), Some(tick.status), view)
}

#[cfg(test)]
mod tests;
