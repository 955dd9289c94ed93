//! A worker's streams. Lives on the worker's thread, behind an `Rc`: no lock, no global. What streams of
//! each kind are told is in a file of its own; here is what all have in common.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use actix_web::rt::{spawn, time::interval};
use bytes::Bytes;
use rand::Rng as _;
use tokio::sync::Notify;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, sleep_until};
use tutti_service::CancellationToken;

use crate::config::Streams;
use crate::inbox::follower::InboxStep;
use crate::map::tick::Tick;
use crate::metrics::{Ended, Metrics};
use crate::sse::coding::Coding;
use crate::sse::frame::{Events, Frame, push_id_line};
use crate::sse::limits::Counted;
use crate::sse::stream::{End, Socket, Stream, Written};
use crate::sse::turns::Turns;

use crate::combined::join::Several;
use crate::inbox::devices::{Device, Post};
use crate::map::viewers::{Look, Viewer};
use crate::rooms::visitors::{Lobby, Visit};
use crate::topics::listeners::{Audience, Listen};

/// Replays of a worker that are under way at the same time, of the whole map and as many of few devices; the
/// others wait for their turn, which addresses get one after the other. One that waits for its socket has none.
const TURNS: usize = 2;

/// Devices of a worker that read from Redis at the same time; the others wait for their turn, which users get one
/// after the other.
const READS: usize = 64;

/// Visitors of a worker that are asked after at the same time; the others wait for their turn, which addresses get
/// one after the other.
const QUESTIONS: usize = 16;

/// A frame that is under way at its stream's end may take so much longer.
pub(crate) const FINISH: Duration = Duration::from_secs(1);

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
    /// The last id that its client was told.
    pub(crate) last_id: Option<String>,
    /// Counts it.
    pub(crate) counted: Counted,
}

/// What a stream shows.
pub(crate) enum What {
    /// The live map, or a part of it.
    Map(Look),
    /// A place in line.
    Room(Visit),
    /// A topic's events.
    Topic(Listen),
    /// A user's inbox.
    Inbox(Device),
    /// Several of these.
    Several(Several),
}

/// One worker's streams.
pub(crate) struct Hub {
    pub(crate) config: Streams,
    pub(crate) metrics: Metrics,
    pub(crate) live: RefCell<Vec<Viewer>>,
    pub(crate) lobby: RefCell<Lobby>,
    pub(crate) audience: RefCell<Audience>,
    pub(crate) post: RefCell<Post>,
    pub(crate) current: RefCell<Option<Arc<Tick>>>,
    /// Where what one client gets is put together.
    pub(crate) scratch: RefCell<Vec<u8>>,
    pub(crate) stepped: Notify,
    /// Turns at replays that walk over the whole map.
    pub(crate) replays: Turns,
    /// Turns at replays of few devices.
    pub(crate) short_replays: Turns,
    /// Turns at reading mailboxes.
    pub(crate) reads: Turns,
    /// Turns at asking after visitors.
    pub(crate) questions: Turns,
    pub(crate) draining: CancellationToken,
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
        let turns = |at_once, what| Turns::new(at_once, metrics.waiting_for(what));
        let hub = Rc::new(Self {
            replays: turns(TURNS, "replay"),
            short_replays: turns(TURNS, "short_replay"),
            reads: turns(READS, "mailbox"),
            questions: turns(QUESTIONS, "question"),
            config,
            metrics,
            live: RefCell::default(),
            lobby: RefCell::default(),
            audience: RefCell::default(),
            post: RefCell::default(),
            current: RefCell::default(),
            scratch: RefCell::default(),
            stepped: Notify::new(),
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
                ours.sweep_viewers();
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
        // It saves time where it can be set; a stream is right without it.
        let _ = socket.set_nodelay(true);
        let Admission { what, chunked, coding, ends_at, end, last_id, counted } = admission;
        let last_write = Instant::now();
        let socket = Socket::Client(socket);
        let (sum, drained, _counted) = (None, false, Some(counted));
        let stream = Stream { socket, chunked, coding, sum, ends_at, end, last_write, drained, _counted };
        self.take_over(stream, what, last_id.as_deref());
    }

    /// Gives each stream an end within the drain window. Those in tasks see it when they come back.
    fn drain(&self) {
        self.drain_viewers();
        self.drain_rooms();
        self.drain_topics();
        self.drain_inboxes();
    }

    /// Within what is left of the drain window.
    pub(crate) fn drain_end(&self) -> Instant {
        let now = Instant::now();
        let began = self.drain_began.get().unwrap_or(now);
        self.drain_began.set(Some(began));
        let left = (began + self.config.drain).saturating_duration_since(now);
        now + left.mul_f64(rand::rng().random_range(0.0..1.0))
    }

    /// When a client whose stream has ended is to come back: not all at once.
    pub(crate) fn retry(&self) -> Duration {
        Duration::from_millis(rand::rng().random_range(200..2000))
    }

    pub(crate) fn ended(&self, end: End) {
        self.metrics.streams.dec();
        self.metrics.ended.get_or_create(&Ended { reason: end.as_str() }).inc();
    }

    /// Waits for something while the stream is kept alive; nothing where its time is over before. While a client
    /// takes nothing it is given up, and begun anew: it may hold a turn that others wait for.
    pub(crate) async fn meanwhile<T>(
        &self,
        stream: &mut Stream,
        begin: impl AsyncFn() -> T,
    ) -> Result<Option<T>, End> {
        loop {
            let rest = {
                let mut awaited = pin!(begin());
                loop {
                    let until = Instant::now() + self.config.heartbeat;
                    tokio::select! {
                        biased;
                        done = &mut awaited => return Ok(Some(done)),
                        () = self.pause(stream, until) => {}
                    }
                    if let Some(rest) = self.beat(stream, "")? {
                        break rest;
                    }
                    if stream.ends_at <= Instant::now() {
                        return Ok(None);
                    }
                }
            };
            self.write(stream, rest).await?;
        }
    }

    /// Writes a frame as far as the socket takes it.
    pub(crate) fn deliver(&self, stream: &mut Stream, bytes: Bytes) -> Written {
        self.metrics.deliveries.inc();
        self.metrics.delivered_bytes.inc_by(bytes.len() as u64);
        stream.last_write = Instant::now();
        stream.try_write(bytes)
    }

    /// The same to its end, however long the client takes, within the bounds of its stream.
    pub(crate) async fn deliver_all(&self, stream: &mut Stream, bytes: Bytes) -> Result<(), End> {
        match self.deliver(stream, bytes) {
            Written::All => Ok(()),
            Written::Gone => Err(End::Left),
            Written::Rest(rest) => self.write(stream, rest).await,
        }
    }

    /// Writes an event that many get, after a line with the client's own id, as far as the socket takes it.
    pub(crate) fn deliver_after(&self, stream: &mut Stream, id: &str, frame: &Frame) -> Written {
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
    pub(crate) fn close(&self, stream: Stream) -> End {
        if stream.ends_at > Instant::now() { End::Left } else { stream.close(self.retry()) }
    }

    /// Writes all of it, however long the client takes, within the bounds of its stream; and a little beyond
    /// its end, so that no event is cut.
    pub(crate) async fn write(&self, stream: &mut Stream, mut rest: Bytes) -> Result<(), End> {
        loop {
            match stream.try_write(rest) {
                Written::All => {
                    stream.last_write = Instant::now();
                    return Ok(());
                }
                Written::Gone => return Err(End::Left),
                Written::Rest(more) => rest = more,
            }
            let (over_at, stalled_at) = (stream.ends_at + FINISH, Instant::now() + self.config.stall);
            tokio::select! {
                ready = stream.socket.writable() => ready.map_err(|_| End::Left)?,
                () = self.draining.cancelled(), if !stream.drained => stream.drain(self.drain_end()),
                () = sleep_until(over_at) => return Err(stream.end),
                () = sleep_until(stalled_at) => return Err(End::Stalled),
            }
        }
    }

    /// Lets time pass until then, or until a heartbeat is due, or the stream's end has come or is
    /// another. Writes nothing, so it may be given up half-way.
    pub(crate) async fn pause(&self, stream: &mut Stream, until: Instant) {
        let heartbeat_at = stream.last_write + self.config.heartbeat;
        tokio::select! {
            () = self.draining.cancelled(), if !stream.drained => stream.drain(self.drain_end()),
            () = sleep_until(until.min(heartbeat_at).min(stream.ends_at)) => {}
        }
    }

    /// Sends a heartbeat if one is due, and notices a client that left.
    pub(crate) async fn keep_alive(&self, stream: &mut Stream) -> Result<(), End> {
        self.keep_alive_at(stream, "").await
    }

    /// Sends a heartbeat with the client's last id, unless that is empty; notices a client that left.
    pub(crate) async fn keep_alive_at(&self, stream: &mut Stream, id: &str) -> Result<(), End> {
        match self.beat(stream, id)? {
            Some(rest) => self.write(stream, rest).await,
            None => Ok(()),
        }
    }

    /// The same as far as the socket takes it; what is left.
    fn beat(&self, stream: &mut Stream, id: &str) -> Result<Option<Bytes>, End> {
        if stream.has_left() {
            return Err(End::Left);
        }
        if stream.last_write.elapsed() < self.config.heartbeat {
            return Ok(None);
        }
        let mut heartbeat = Events::default();
        heartbeat.heartbeat();
        if !id.is_empty() {
            heartbeat.id(id);
        }
        let bytes = stream.encode(&heartbeat.frame());
        match stream.try_write(bytes) {
            Written::Gone => Err(End::Left),
            Written::Rest(rest) => Ok(Some(rest)),
            Written::All => {
                stream.last_write = Instant::now();
                Ok(None)
            }
        }
    }
}
