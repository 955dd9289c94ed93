//! One client's stream: its socket, and what it takes to bring it to where the others are.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use bytes::{Buf as _, Bytes};
use tokio::time::{Instant, sleep_until};
use tutti_feed::Cursor;

use crate::frame::{Events, LAST_CHUNK};
use crate::metrics::Metrics;
use crate::replay::Replay;
use crate::tick::{Status, Tick};
use crate::view::Resume;

/// A client that is to wait for a cursor that this edge does not have yet is told so after this.
const WAITING_SAID_AFTER: Duration = Duration::from_secs(2);

/// The id of a client that has been shown a part of a snapshot. Who comes back with it must forget
/// that part: what was removed meanwhile is not in the next snapshot.
pub(crate) const INCOMPLETE: &str = "0";

/// Why a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client went away.
    Left,
    /// Its time was over: it comes back, perhaps to another edge.
    Life,
    /// This edge is stopping.
    Drain,
    /// Its token expired.
    Token,
    /// It read nothing for too long.
    Stalled,
}

impl End {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Life => "life",
            Self::Drain => "drain",
            Self::Token => "token",
            Self::Stalled => "stalled",
        }
    }
}

/// What a stream was shown so far.
#[derive(Clone, Debug)]
pub(crate) enum Shown {
    /// Nothing.
    Nothing,
    /// What this cursor covers, under this generation; `None` if the cursor came from the client,
    /// perhaps from another edge.
    UpTo(Arc<Cursor>, Option<u64>),
    /// Something that we cannot tell: begin with a reset.
    Lost(&'static str),
}

/// A client's socket and terms.
pub(crate) struct Stream {
    pub(crate) socket: TcpStream,
    pub(crate) chunked: bool,
    pub(crate) ends_at: Instant,
    pub(crate) end: End,
    pub(crate) last_write: Instant,
    /// Its end was drawn into the drain window, unless it was to end before.
    pub(crate) drained: bool,
}

/// What a write left over.
pub(crate) enum Written {
    All,
    Rest(Bytes),
    Gone,
}

impl Stream {
    /// Writes as much as the socket takes without waiting.
    pub(crate) fn try_write(&mut self, mut bytes: Bytes) -> Written {
        while !bytes.is_empty() {
            match self.socket.try_write(&bytes) {
                Ok(0) => return Written::Gone,
                Ok(n) => bytes.advance(n),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Written::Rest(bytes),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Written::Gone,
            }
        }
        Written::All
    }

    /// Whether the client has closed its side; what it sends is thrown away.
    pub(crate) fn has_left(&self) -> bool {
        let mut scrap = [0; 512];
        // Who floods us is read a little each time.
        for _ in 0..16 {
            match self.socket.try_read(&mut scrap) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
        false
    }

    /// Its edge is stopping: it ends then, if not before.
    pub(crate) fn drain(&mut self, ends_at: Instant) {
        if !std::mem::replace(&mut self.drained, true) && ends_at < self.ends_at {
            self.end = End::Drain;
            self.ends_at = ends_at;
        }
    }

    /// A planned end, where no frame is under way: with the reason, and the last chunk. A socket
    /// that is full ends without.
    pub(crate) fn close(mut self, retry: Duration) -> End {
        let mut events = Events::default();
        match self.end {
            End::Token => drop(events.event("end", r#"{"reason":"token_expired"}"#)),
            End::Drain => drop(events.retry(retry)),
            End::Life | End::Left | End::Stalled => {}
        }
        let mut bytes =
            if events.is_empty() { Vec::new() } else { events.frame().bytes(self.chunked).to_vec() };
        if self.chunked {
            bytes.extend_from_slice(LAST_CHUNK);
        }
        if let Written::All = self.try_write(bytes.into()) {
            // Bytes unread at close would turn it into a connection reset.
            self.has_left();
        }
        self.end
    }

    /// Waits until the socket takes more, or the stream's time is over.
    pub(crate) async fn writable(&mut self, stall: Duration) -> Result<(), End> {
        let stalled_at = Instant::now() + stall;
        tokio::select! {
            ready = self.socket.writable() => ready.map_err(|_| End::Left),
            () = sleep_until(self.ends_at) => Err(self.end),
            () = sleep_until(stalled_at) => Err(End::Stalled),
        }
    }
}

/// The way of one stream from what it was shown to a step: what to write next.
pub(crate) struct Approach {
    shown: Shown,
    /// The status that it was told.
    status: Option<Status>,
    pass: Option<Pass>,
    waiting_since: Option<(Instant, u64)>,
}

/// One replay to a target.
struct Pass {
    replay: Replay,
    /// What the client was shown before, if it is not shown everything.
    from: Option<Arc<Cursor>>,
    cursor: Arc<Cursor>,
    id: Arc<str>,
    generation: u64,
}

/// What comes next on the way.
pub(crate) enum NextWrite {
    /// These events.
    Write(Events),
    /// Nothing, until another step comes, or until then.
    Wait(Instant),
    /// It is at the current step.
    Arrived,
}

impl Approach {
    pub(crate) fn new(shown: Shown, status: Option<Status>) -> Self {
        Self { shown, status, pass: None, waiting_since: None }
    }

    /// The next events, given the newest step, if there was one yet.
    pub(crate) fn next(&mut self, tick: Option<&Tick>, metrics: &Metrics) -> NextWrite {
        let Some(tick) = tick else {
            let (until, events) = self.keep_waiting(0);
            return if events.is_empty() { NextWrite::Wait(until) } else { NextWrite::Write(events) };
        };
        if self.pass.as_ref().is_some_and(|pass| pass.generation != tick.generation) {
            self.pass = None;
            self.shown = Shown::Lost(tick.reset_reason);
        }
        let from = self.pass.as_ref().and_then(|pass| pass.from.as_ref());
        if from.is_some_and(|from| !tick.view.remembers(from)) {
            self.pass = None;
            self.shown = Shown::Lost("too_old");
        }
        let mut begun = Events::default();
        if self.pass.is_none() {
            match self.begin(tick, &mut begun, metrics) {
                Begin::Pass(pass) => self.pass = Some(pass),
                Begin::There => {}
                Begin::Wait(until) if begun.is_empty() => return NextWrite::Wait(until),
                Begin::Wait(_) => return NextWrite::Write(begun),
            }
        }
        let mut events = Events::default();
        if self.status.replace(tick.status) != Some(tick.status) {
            tick.status.write(&mut events);
        }
        events.append(&begun);
        if let Some(pass) = &mut self.pass {
            events.append(&pass.replay.next_chunk(&tick.view));
            if pass.replay.is_done() {
                events.id(&pass.id);
                self.shown = Shown::UpTo(pass.cursor.clone(), Some(pass.generation));
                self.pass = None;
            }
        } else if events.is_empty() {
            return NextWrite::Arrived;
        }
        NextWrite::Write(events)
    }

    /// How to get from what was shown to this step.
    fn begin(&mut self, tick: &Tick, events: &mut Events, metrics: &Metrics) -> Begin {
        let mut since = None;
        let replay = match &self.shown {
            Shown::Nothing => {
                events.id(INCOMPLETE);
                Replay::all()
            }
            Shown::UpTo(_, Some(generation)) if *generation != tick.generation => {
                self.reset(tick.reset_reason, events, metrics)
            }
            Shown::UpTo(cursor, ours) => {
                if ours.is_some() && *cursor == tick.cursor {
                    return Begin::There;
                }
                match tick.view.resume(cursor) {
                    Resume::From(from) => {
                        since = Some(cursor.clone());
                        Replay::since(from)
                    }
                    Resume::TooOld => self.reset("too_old", events, metrics),
                    Resume::Unknown => match self.wait(tick, events) {
                        Some(until) => return Begin::Wait(until),
                        None => self.reset("unknown_id", events, metrics),
                    },
                }
            }
            Shown::Lost(reason) => {
                let reason = *reason;
                self.reset(reason, events, metrics)
            }
        };
        metrics.replays.inc();
        Begin::Pass(Pass {
            replay,
            from: since,
            cursor: tick.cursor.clone(),
            id: tick.id.clone(),
            generation: tick.generation,
        })
    }

    /// A cursor that this edge does not know may be ahead of it. Only once Redis's heads have been
    /// asked for after the client came, and this edge has reached them, is it known to be none.
    fn wait(&mut self, tick: &Tick, events: &mut Events) -> Option<Instant> {
        let (_, polls) = *self.waiting_since.get_or_insert((Instant::now(), tick.polls));
        // The poll under way when the client came may have asked before.
        if tick.polls >= polls + 2 && tick.view.reaches(&tick.heads) {
            return None;
        }
        let (until, waiting) = self.keep_waiting(tick.polls);
        events.append(&waiting);
        Some(until)
    }

    /// Until when to wait for another step, and the status if that has lasted for a while.
    fn keep_waiting(&mut self, polls: u64) -> (Instant, Events) {
        let (since, _) = *self.waiting_since.get_or_insert((Instant::now(), polls));
        let mut events = Events::default();
        let say_at = since + WAITING_SAID_AFTER;
        if Instant::now() < say_at {
            return (say_at, events);
        }
        let stale = Status::Stale { since_ms: None };
        if self.status.replace(stale) != Some(stale) {
            stale.write(&mut events);
        }
        (Instant::now() + Duration::from_secs(10), events)
    }

    fn reset(&self, reason: &str, events: &mut Events, metrics: &Metrics) -> Replay {
        metrics.resets.inc();
        events.event("reset", &format!(r#"{{"reason":"{reason}"}}"#)).id(INCOMPLETE);
        Replay::all()
    }
}

enum Begin {
    Pass(Pass),
    There,
    Wait(Instant),
}
