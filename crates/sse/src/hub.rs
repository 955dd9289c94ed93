//! One worker's streams: how they open, stay alive, and end. A hub lives on the worker's thread, behind an `Rc`: it needs
//! no lock. What streams show is the business of [`Job`]s.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng as _};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::{Instant, interval, sleep_until};
use tutti_service::CancellationToken;

use crate::coding::Coding;
use crate::events::Events;
use crate::frame::{Frame, push_id_line};
use crate::limits::Permit;
use crate::metrics::Metrics;
use crate::socket::Socket;
use crate::stream::{CloseReason, Stream, WriteOutcome};

/// Time beyond the end of a stream for the frame that is being written then, so that no event is cut.
pub const FINISH: Duration = Duration::from_secs(1);

/// How often jobs sweep their streams.
const SWEEP: Duration = Duration::from_secs(1);

/// What the streams of one kind show. Each worker has one instance of each job.
pub trait Job {
    /// Called once a second: ends streams whose time is over or whose client left, and sends heartbeats that are due.
    fn sweep(self: Rc<Self>);

    /// Called once when the server drains: gives each stream that is up to date an end by [`Hub::drain_stream`].
    /// Streams in tasks of their own notice the drain by the methods of the hub.
    fn drain(&self);
}

/// Takes over a stream whose response head was written. Its second argument is the first bytes, which are to be
/// written before anything else.
pub type Start = Box<dyn FnOnce(Stream, Bytes)>;

/// The terms on which a client gets a stream.
pub struct Admission {
    /// The job's function that takes the stream over.
    pub start: Start,
    /// Whether the body is chunked: it is under HTTP/1.1.
    pub chunked: bool,
    /// How the body is compressed.
    pub coding: Coding,
    /// When the stream ends.
    pub ends_at: Instant,
    /// Why the stream ends at that time.
    pub planned_end: CloseReason,
    /// The last id that the client has seen, if it is printable ASCII without spaces.
    pub last_id: Option<String>,
    /// Counts the stream among its client's for as long as it is open.
    pub permit: Permit,
}

/// Times that all streams observe.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// A heartbeat follows when nothing was written for this time.
    pub heartbeat: Duration,
    /// A client that takes nothing for this time is cut off, with the reason [`CloseReason::Stalled`].
    pub stall: Duration,
    /// When the server drains, streams end spread over this time.
    pub drain: Duration,
}

/// One worker's streams.
pub struct Hub {
    timeouts: Timeouts,
    metrics: Metrics,
    jobs: RefCell<Vec<Rc<dyn Job>>>,
    /// Buffer in which a write for one client is put together.
    scratch: RefCell<Vec<u8>>,
    draining: CancellationToken,
    drain_began: Cell<Option<Instant>>,
    rng: RefCell<StdRng>,
}

impl Hub {
    /// Starts a hub on this thread, which must run a [`tokio::task::LocalSet`]. When `drain` is cancelled the hub ends
    /// its streams, spread over the drain window.
    pub fn start(timeouts: Timeouts, metrics: Metrics, drain: CancellationToken) -> Rc<Self> {
        let hub = Rc::new(Self {
            timeouts,
            metrics,
            jobs: RefCell::default(),
            scratch: RefCell::default(),
            draining: drain,
            drain_began: Cell::new(None),
            rng: RefCell::new(StdRng::from_os_rng()),
        });
        let ours = hub.clone();
        spawn_local(async move {
            let mut sweeps = interval(SWEEP);
            loop {
                sweeps.tick().await;
                for job in ours.jobs() {
                    job.sweep();
                }
            }
        });
        let ours = hub.clone();
        spawn_local(async move {
            ours.draining.cancelled().await;
            for job in ours.jobs() {
                job.drain();
            }
        });
        hub
    }

    /// Adds a job, whose streams are swept and drained from now on.
    pub fn add(&self, job: Rc<dyn Job>) {
        self.jobs.borrow_mut().push(job);
    }

    fn jobs(&self) -> Vec<Rc<dyn Job>> {
        self.jobs.borrow().clone()
    }

    /// Returns the metrics of the streams of all workers.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Opens the stream of a client whose response head was written.
    pub fn admit(&self, socket: TcpStream, admission: Admission) {
        // It saves time where it can be set; a stream is right without it.
        let _ = socket.set_nodelay(true);
        let Admission { start, chunked, coding, ends_at, planned_end, last_id, permit } = admission;
        let stream = Stream::new(Socket::Client(socket), chunked, coding, ends_at, planned_end, Some(permit));
        self.open(stream, start, last_id.as_deref());
    }

    /// Opens a stream, which begins with a heartbeat, so that bytes flow at once. The heartbeat repeats the client's last
    /// id: a client forgets its id at the first event of a connection unless it gets one.
    pub fn open(&self, mut stream: Stream, start: Start, last_id: Option<&str>) {
        self.metrics.opened.inc();
        self.metrics.streams.inc();
        let begin = stream.begin();
        let mut hello = Events::default();
        hello.heartbeat().retry(Duration::from_secs(1));
        if let Some(id) = last_id {
            hello.id(id);
        }
        let hello = stream.encode(&hello.frame());
        let hello = if begin.is_empty() { hello } else { [begin, hello].concat().into() };
        start(stream, hello);
    }

    /// Runs a task that ends a stream or brings it back to its job's list, and counts the stream as behind meanwhile.
    /// `Err` is the reason for which the stream ended.
    pub fn spawn_behind(self: &Rc<Self>, task: impl Future<Output = Result<(), CloseReason>> + 'static) {
        let hub = self.clone();
        spawn_local(async move {
            hub.metrics.behind.inc();
            let outcome = task.await;
            hub.metrics.behind.dec();
            if let Err(reason) = outcome {
                hub.metrics.ended(reason);
            }
        });
    }

    /// Returns the time at which a stream ends while the server drains: a random time within what is left of the drain
    /// window. Streams end at the sweep of each second, and the random `retry` of [`Hub::close`] spreads their clients
    /// within it.
    fn drain_end(&self) -> Instant {
        let now = Instant::now();
        let began = self.drain_began.get().unwrap_or(now);
        self.drain_began.set(Some(began));
        let left = (began + self.timeouts.drain).saturating_duration_since(now);
        end_within(&mut self.rng.borrow_mut(), now, left)
    }

    /// Gives a stream its end within the drain window, unless it has one or ends before.
    pub fn drain_stream(&self, stream: &mut Stream) {
        if !stream.is_drained() {
            stream.drain(self.drain_end());
        }
    }

    /// Whether the server drains.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Whether the stream's time is over. A stream of a server that drains gets its end here.
    pub fn is_due(&self, stream: &mut Stream) -> bool {
        if self.is_draining() {
            self.drain_stream(stream);
        }
        stream.ends_at <= Instant::now()
    }

    /// Writes the planned end of a stream, at which no frame is under way: the reason, and after how long the client is
    /// to come back. That time is random, so that not all clients come at once.
    pub fn close(&self, stream: Stream) -> CloseReason {
        stream.close(Duration::from_millis(self.rng.borrow_mut().random_range(200..2000)))
    }

    /// Ends a stream that a sweep found over: by its client, or by its planned end.
    pub fn close_swept(&self, stream: Stream) -> CloseReason {
        if stream.ends_at > Instant::now() { CloseReason::Left } else { self.close(stream) }
    }

    /// Whether a heartbeat is due.
    pub fn is_heartbeat_due(&self, stream: &Stream) -> bool {
        stream.last_write.elapsed() >= self.timeouts.heartbeat
    }

    /// Runs `begin()` while sending heartbeats. Returns `None` if the stream's time is over first. While a heartbeat
    /// blocks, the future is dropped, and begun again after it: a client that takes nothing must not hold a turn
    /// that others wait for.
    ///
    /// # Errors
    /// Why the stream ended meanwhile.
    pub async fn meanwhile<T>(
        &self,
        stream: &mut Stream,
        begin: impl AsyncFn() -> T,
    ) -> Result<Option<T>, CloseReason> {
        loop {
            let rest = {
                let mut awaited = pin!(begin());
                loop {
                    let until = Instant::now() + self.timeouts.heartbeat;
                    tokio::select! {
                        biased;
                        done = &mut awaited => return Ok(Some(done)),
                        () = self.pause(stream, until) => {}
                    }
                    if let Some(rest) = self.try_heartbeat(stream, "")? {
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
    pub fn deliver(&self, stream: &mut Stream, bytes: Bytes) -> WriteOutcome {
        self.metrics.deliveries.inc();
        self.metrics.delivered_bytes.inc_by(bytes.len() as u64);
        stream.last_write = Instant::now();
        stream.try_write(bytes)
    }

    /// Writes a whole frame, however long the client takes, within the bounds of its stream.
    ///
    /// # Errors
    /// Why the stream ended meanwhile.
    pub async fn deliver_all(&self, stream: &mut Stream, bytes: Bytes) -> Result<(), CloseReason> {
        match self.deliver(stream, bytes) {
            WriteOutcome::Complete => Ok(()),
            WriteOutcome::Closed => Err(CloseReason::Left),
            WriteOutcome::Partial(rest) => self.write(stream, rest).await,
        }
    }

    /// Writes a frame that many clients get, after a line with this client's own id, as far as the socket takes it.
    pub fn deliver_after_id(&self, stream: &mut Stream, id: &str, frame: &Frame) -> WriteOutcome {
        let body = frame.bytes(stream.chunked);
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        push_id_line(id, stream.chunked, &mut scratch);
        self.metrics.deliveries.inc();
        self.metrics.delivered_bytes.inc_by((scratch.len() + body.len()) as u64);
        stream.last_write = Instant::now();
        stream.try_write_after(&mut scratch, body)
    }

    /// Writes the rest of a frame, however long the client takes, within the bounds of its stream, and a little beyond
    /// its end, so that no event is cut.
    ///
    /// # Errors
    /// Why the stream ended meanwhile.
    pub async fn write(&self, stream: &mut Stream, mut rest: Bytes) -> Result<(), CloseReason> {
        loop {
            match stream.try_write(rest) {
                WriteOutcome::Complete => {
                    stream.last_write = Instant::now();
                    return Ok(());
                }
                WriteOutcome::Closed => return Err(CloseReason::Left),
                WriteOutcome::Partial(more) => rest = more,
            }
            let (over_at, stalled_at) = (stream.ends_at + FINISH, Instant::now() + self.timeouts.stall);
            tokio::select! {
                ready = stream.writable() => ready.map_err(|_| CloseReason::Left)?,
                () = self.draining.cancelled(), if !stream.is_drained() => self.drain_stream(stream),
                () = sleep_until(over_at) => return Err(stream.planned_end),
                () = sleep_until(stalled_at) => return Err(CloseReason::Stalled),
            }
        }
    }

    /// Waits until `until`, or until a heartbeat is due, or the stream's end has come or was changed. Writes nothing, so
    /// the future may be dropped at any time.
    pub async fn pause(&self, stream: &mut Stream, until: Instant) {
        let heartbeat_at = stream.last_write + self.timeouts.heartbeat;
        tokio::select! {
            () = self.draining.cancelled(), if !stream.is_drained() => self.drain_stream(stream),
            () = sleep_until(until.min(heartbeat_at).min(stream.ends_at)) => {}
        }
    }

    /// Sends a heartbeat if one is due, with the client's last id unless `id` is empty. Notices a client that left.
    ///
    /// # Errors
    /// Why the stream ended meanwhile.
    pub async fn keep_alive(&self, stream: &mut Stream, id: &str) -> Result<(), CloseReason> {
        match self.try_heartbeat(stream, id)? {
            Some(rest) => self.write(stream, rest).await,
            None => Ok(()),
        }
    }

    /// Sends a heartbeat if one is due, as far as the socket takes it. Returns the rest of the heartbeat.
    fn try_heartbeat(&self, stream: &mut Stream, id: &str) -> Result<Option<Bytes>, CloseReason> {
        if stream.has_left() {
            return Err(CloseReason::Left);
        }
        if !self.is_heartbeat_due(stream) {
            return Ok(None);
        }
        let mut heartbeat = Events::default();
        heartbeat.heartbeat();
        if !id.is_empty() {
            heartbeat.id(id);
        }
        let bytes = stream.encode(&heartbeat.frame());
        match stream.try_write(bytes) {
            WriteOutcome::Closed => Err(CloseReason::Left),
            WriteOutcome::Partial(rest) => Ok(Some(rest)),
            WriteOutcome::Complete => {
                stream.last_write = Instant::now();
                Ok(None)
            }
        }
    }
}

/// Returns a random time between `now` and `left` later, at which a stream ends that drains.
pub(crate) fn end_within(rng: &mut impl Rng, now: Instant, left: Duration) -> Instant {
    now + left.mul_f64(rng.random_range(0.0..1.0))
}
