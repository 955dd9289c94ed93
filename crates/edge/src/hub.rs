//! A worker's streams. Lives on the worker's thread, behind an `Rc`: no lock, no global.
//!
//! Streams that are where the others are lie in one list; each step's bytes, encoded once for all,
//! are written to each of them without waiting. A stream whose socket would block, that is new, or
//! that resumes, leaves the list and becomes a task, until it has been brought to the newest step.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use actix_web::rt::{spawn, time::interval};
use bytes::Bytes;
use rand::Rng as _;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};
use tutti_service::CancellationToken;

use crate::approach::{Approach, NextWrite, Shown, View};
use crate::coding::Coding;
use crate::config::Streams;
use crate::counts::Counted;
use crate::frame::{Events, Frame, push_id_line};
use crate::inboxes::InboxStep;
use crate::metrics::{Ended, Metrics};
use crate::stream::{End, Socket, Stream, Written};
use crate::tick::Tick;

mod catch_up;
mod combined;
mod devices;
mod listeners;
mod roster;
mod visitor;
mod visitors;

pub(crate) use combined::Several;
pub(crate) use devices::Device;
use devices::Post;
use listeners::Audience;
pub(crate) use listeners::{From, Listen};
use visitors::Lobby;
pub(crate) use visitors::Visit;

/// Replays of a worker that are under way at the same time; the others wait for their turn. One that
/// waits for its socket has none.
const TURNS: usize = 2;

/// Devices of a worker that read from Redis at the same time; the others wait for their turn.
const READS: usize = 64;

/// A stream that stays blocked keeps at most this in the kernel: what is older is not worth it.
const NOTSENT_LOWAT: u32 = 64 * 1024;

/// On what terms a client gets a stream.
pub(crate) struct Admission {
    /// What it is to be shown.
    pub(crate) what: What,
    /// HTTP/1.1: its body is chunked.
    pub(crate) chunked: bool,
    /// How it is compressed.
    pub(crate) coding: Coding,
    /// When its time is over.
    pub(crate) ends_at: Instant,
    /// What its end is then.
    pub(crate) end: End,
    /// Counts it.
    pub(crate) counted: Counted,
}

/// What a stream shows.
pub(crate) enum What {
    /// The live map, or a part of it, to one who was shown this before.
    Map(Shown, View),
    /// A place in line.
    Room(Visit),
    /// A topic's events.
    Topic(Listen),
    /// A user's inbox.
    Inbox(Device),
    /// Several of these.
    Several(Several),
}

/// Who looks at the map.
struct Viewer {
    stream: Stream,
    view: View,
}

/// One worker's streams.
pub(crate) struct Hub {
    config: Streams,
    metrics: Metrics,
    live: RefCell<Vec<Viewer>>,
    lobby: RefCell<Lobby>,
    audience: RefCell<Audience>,
    post: RefCell<Post>,
    current: RefCell<Option<Arc<Tick>>>,
    /// Where what one client gets is put together.
    scratch: RefCell<Vec<u8>>,
    stepped: Notify,
    turns: Semaphore,
    reads: Semaphore,
    draining: CancellationToken,
    drain_began: Cell<Option<Instant>>,
}

impl Hub {
    /// Starts a hub on this thread. When `drain` is cancelled it ends its streams, spread over the
    /// drain window.
    pub(crate) fn start(
        config: Streams,
        metrics: Metrics,
        mut ticks: broadcast::Receiver<Arc<Tick>>,
        inboxes: broadcast::Receiver<Arc<InboxStep>>,
        drain: CancellationToken,
    ) -> Rc<Self> {
        let hub = Rc::new(Self {
            config,
            metrics,
            live: RefCell::default(),
            lobby: RefCell::default(),
            audience: RefCell::default(),
            post: RefCell::default(),
            current: RefCell::default(),
            scratch: RefCell::default(),
            stepped: Notify::new(),
            turns: Semaphore::new(TURNS),
            reads: Semaphore::new(READS),
            draining: drain,
            drain_began: Cell::new(None),
        });
        let ours = hub.clone();
        spawn(async move {
            loop {
                match ticks.recv().await {
                    Ok(tick) => ours.step(&tick),
                    // The step after it does not follow ours: replays bring the streams there.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
        hub.hear_inboxes(inboxes);
        let ours = hub.clone();
        spawn(async move {
            let mut sweeps = interval(Duration::from_secs(1));
            loop {
                sweeps.tick().await;
                ours.sweep();
                ours.sweep_rooms();
                ours.sweep_topics();
                ours.sweep_inboxes();
            }
        });
        let ours = hub.clone();
        spawn(async move {
            ours.draining.cancelled().await;
            ours.drain();
        });
        hub
    }

    /// The newest step, if there was one yet.
    pub(crate) fn current(&self) -> Option<Arc<Tick>> {
        self.current.borrow().clone()
    }

    /// Takes a socket over, its response head written.
    pub(crate) fn admit(self: Rc<Self>, socket: TcpStream, admission: Admission) {
        let options = socket2::SockRef::from(&socket);
        // They save work where they can be set; a stream is right without them.
        let _ = options.set_tcp_nodelay(true);
        let _ = options.set_tcp_notsent_lowat(NOTSENT_LOWAT);
        let Admission { what, chunked, coding, ends_at, end, counted } = admission;
        let last_write = Instant::now();
        let socket = Socket::Client(socket);
        let (sum, drained, _counted) = (None, false, Some(counted));
        let stream = Stream { socket, chunked, coding, sum, ends_at, end, last_write, drained, _counted };
        self.take_over(stream, what);
    }

    /// Takes a viewer's stream of the map over, its response head written.
    fn admit_viewer(self: Rc<Self>, mut stream: Stream, hello: Bytes, shown: Shown, view: View) {
        let first = match view.area() {
            None => hello,
            Some(area) => {
                let told = Events::default().event("view", &area.json()).frame();
                [hello, stream.encode(&told)].concat().into()
            }
        };
        self.serve(Viewer { stream, view }, first, Approach::new(shown, None, view));
    }

    /// One step: its bytes to all that are at the step before.
    fn step(self: &Rc<Self>, tick: &Arc<Tick>) {
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
        let Viewer { stream, view } = viewer;
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        let told = match *view {
            View::World => return tick.live.as_ref().map(|frame| stream.encode(frame)),
            View::Area(area) => {
                let frames = tick.tiles.frames(area, &self.metrics);
                frames.iter().for_each(|frame| scratch.extend_from_slice(&stream.encode(frame)));
                !frames.is_empty()
            }
            View::Clusters(area) => {
                let clusters = tick.clusters(before, area.zoom());
                let here = area.each().filter_map(|tile| clusters.get(&tile));
                here.for_each(|frame| scratch.extend_from_slice(&stream.encode(frame)));
                !scratch.is_empty()
            }
        };
        if told {
            let id = Events::default().id(&view.id(&tick.id)).frame();
            scratch.extend_from_slice(&stream.encode(&id));
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
    fn sweep(self: &Rc<Self>) {
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
            self.write_to_all(&mut live, &tick, |Viewer { stream, view }| {
                (now - stream.last_write >= heartbeat).then(|| match view {
                    View::World => stream.encode(&tick.heartbeat),
                    _ => {
                        let id = view.id(&tick.id);
                        stream.encode(&Events::default().comment("heartbeat").id(&id).frame())
                    }
                })
            });
        }
    }

    /// Gives each stream an end within the drain window. Those in tasks see it when they come back.
    fn drain(&self) {
        for viewer in self.live.borrow_mut().iter_mut() {
            viewer.stream.drain(self.drain_end());
        }
        self.drain_rooms();
        self.drain_topics();
        self.drain_inboxes();
    }

    /// Within what is left of the drain window.
    fn drain_end(&self) -> Instant {
        let now = Instant::now();
        let began = self.drain_began.get().unwrap_or(now);
        self.drain_began.set(Some(began));
        let left = (began + self.config.drain).saturating_duration_since(now);
        now + left.mul_f64(rand::rng().random_range(0.0..1.0))
    }

    /// When a client of a draining edge is to come back: not all at once.
    fn retry(&self) -> Duration {
        Duration::from_millis(rand::rng().random_range(200..2000))
    }

    fn ended(&self, end: End) {
        self.metrics.streams.dec();
        self.metrics.ended.get_or_create(&Ended { reason: end.as_str() }).inc();
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
        let Viewer { mut stream, view } = viewer;
        self.write(&mut stream, rest).await?;
        // Kept for a whole pass: if walks took turns with each chunk, a herd of them would each be
        // overtaken by the next step before its end, and begin again for ever. Kept for no more than
        // a pass: one that is overtaken all the same must let the others by.
        let mut turn = None;
        loop {
            if turn.is_none() {
                turn = self.turn(&mut stream).await?;
            }
            if self.draining.is_cancelled() {
                stream.drain(self.drain_end());
            }
            if stream.ends_at <= Instant::now() {
                return Err(stream.close(self.retry()));
            }
            match approach.next(self.current().as_deref(), Instant::now(), &self.metrics) {
                NextWrite::Arrived => {
                    self.enlist(Viewer { stream, view });
                    return Ok(());
                }
                NextWrite::Write(events) if events.is_empty() => {}
                NextWrite::Write(events) => {
                    let bytes = stream.encode(&events.frame());
                    match self.deliver(&mut stream, bytes) {
                        Written::All if self.current().is_some_and(|tick| approach.is_at(&tick)) => {
                            self.enlist(Viewer { stream, view });
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

    /// Waits for a turn; none where the stream's time is over before.
    async fn turn(&self, stream: &mut Stream) -> Result<Option<SemaphorePermit<'_>>, End> {
        let turn = self.meanwhile(stream, self.turns.acquire()).await?;
        Ok(turn.map(|turn| turn.expect("the semaphore is never closed")))
    }

    /// Waits for something while the stream is kept alive; nothing where its time is over before.
    async fn meanwhile<T>(
        &self,
        stream: &mut Stream,
        awaited: impl Future<Output = T>,
    ) -> Result<Option<T>, End> {
        tokio::pin!(awaited);
        loop {
            let until = Instant::now() + self.config.heartbeat;
            tokio::select! {
                biased;
                done = &mut awaited => return Ok(Some(done)),
                () = self.pause(stream, until) => {}
            }
            self.keep_alive(stream).await?;
            if stream.ends_at <= Instant::now() {
                return Ok(None);
            }
        }
    }

    /// Writes a frame as far as the socket takes it.
    fn deliver(&self, stream: &mut Stream, bytes: Bytes) -> Written {
        self.metrics.deliveries.inc();
        self.metrics.delivered_bytes.inc_by(bytes.len() as u64);
        stream.last_write = Instant::now();
        stream.try_write(bytes)
    }

    /// The same to its end, however long the client takes, within the bounds of its stream.
    async fn deliver_all(&self, stream: &mut Stream, bytes: Bytes) -> Result<(), End> {
        match self.deliver(stream, bytes) {
            Written::All => Ok(()),
            Written::Gone => Err(End::Left),
            Written::Rest(rest) => self.write(stream, rest).await,
        }
    }

    /// Writes an event that many get, after a line with the client's own id, as far as the socket takes it.
    fn deliver_after(&self, stream: &mut Stream, id: &str, frame: &Frame) -> Written {
        let body = frame.bytes(stream.chunked);
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        push_id_line(id, stream.chunked, &mut scratch);
        self.metrics.deliveries.inc();
        self.metrics.delivered_bytes.inc_by((scratch.len() + body.len()) as u64);
        stream.last_write = Instant::now();
        stream.try_write_after(&mut scratch, body)
    }

    /// Ends a stream that is over, between two frames.
    fn close(&self, stream: Stream) -> End {
        if stream.ends_at > Instant::now() { End::Left } else { stream.close(self.retry()) }
    }

    /// Writes all of it, however long the client takes, within the bounds of its stream.
    async fn write(&self, stream: &mut Stream, mut rest: Bytes) -> Result<(), End> {
        loop {
            match stream.try_write(rest) {
                Written::All => {
                    stream.last_write = Instant::now();
                    return Ok(());
                }
                Written::Gone => return Err(End::Left),
                Written::Rest(more) => rest = more,
            }
            stream.writable(self.config.stall).await?;
        }
    }

    /// Lets time pass until then, or until a heartbeat is due, or the stream's end has come or is
    /// another. Writes nothing, so it may be given up half-way.
    async fn pause(&self, stream: &mut Stream, until: Instant) {
        let heartbeat_at = stream.last_write + self.config.heartbeat;
        tokio::select! {
            () = self.draining.cancelled(), if !stream.drained => stream.drain(self.drain_end()),
            () = sleep_until(until.min(heartbeat_at).min(stream.ends_at)) => {}
        }
    }

    /// Sends a heartbeat if one is due, and notices a client that left.
    async fn keep_alive(&self, stream: &mut Stream) -> Result<(), End> {
        if stream.has_left() {
            return Err(End::Left);
        }
        if stream.last_write.elapsed() >= self.config.heartbeat {
            let comment = Events::default().comment("heartbeat").frame();
            let bytes = stream.encode(&comment);
            self.write(stream, bytes).await?;
        }
        Ok(())
    }
}

/// From this step on.
fn from(tick: &Tick, view: View) -> Approach {
    Approach::new(Shown::UpTo(tick.cursor.clone(), Some(tick.generation)), Some(tick.status), view)
}
