//! One client's stream: its socket, and on what terms the client has it.

use std::io::{self, ErrorKind};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::time::Instant;

use crate::coding::{Coding, GZIP_HEADER, Sum};
use crate::events::Events;
use crate::frame::{Frame, LAST_CHUNK, chunk_of};
use crate::limits::Permit;
use crate::socket::Socket;
use tutti_model::events::{END, RECONNECT};

/// Why a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed the connection, or it broke.
    Left,
    /// The stream's time was over. The client comes back, perhaps to another server.
    Life,
    /// The server stops.
    Drain,
    /// The client's token expired.
    Token,
    /// The client took nothing for too long.
    Stalled,
    /// What the stream showed is over, and an event has said so.
    Over,
}

impl CloseReason {
    /// Returns the reason as metrics and the event `reconnect` name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Life => "life",
            Self::Drain => "drain",
            Self::Token => "token",
            Self::Stalled => "stalled",
            Self::Over => "over",
        }
    }
}

/// Bytes that many clients get are copied for one of them up to this length.
const COPIED_BYTES: usize = 8 * 1024;

/// One client's stream: its socket, and the terms on which the client has it.
pub struct Stream {
    pub(crate) socket: Socket,
    /// Whether the body is chunked.
    pub chunked: bool,
    coding: Coding,
    /// Under gzip: the checksum and length of all text that was encoded for the client.
    sum: Option<Box<(Sum, u64)>>,
    /// When the stream ends.
    pub ends_at: Instant,
    /// Why the stream ends then.
    pub planned_end: CloseReason,
    /// When the last bytes were written or handed to the socket.
    pub last_write: Instant,
    /// Whether `ends_at` was moved into the drain window, or lies before it.
    is_drained: bool,
    /// Counts the stream; `None` for a part of a combined stream, which is counted as a whole.
    _permit: Option<Permit>,
}

/// What became of bytes that were written without waiting.
#[derive(Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The socket took all of them.
    Complete,
    /// The socket is full; these bytes are left.
    Partial(Bytes),
    /// The client has closed the connection, or it broke.
    Closed,
}

impl Stream {
    /// A stream to `socket` that has not begun.
    pub fn new(
        socket: Socket,
        chunked: bool,
        coding: Coding,
        ends_at: Instant,
        planned_end: CloseReason,
        permit: Option<Permit>,
    ) -> Self {
        let last_write = Instant::now();
        let (sum, is_drained, _permit) = (None, false, permit);
        Self { socket, chunked, coding, sum, ends_at, planned_end, last_write, is_drained, _permit }
    }

    /// Waits until the socket takes more bytes.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    /// Whether the stream has its end within the drain window, or ends before it.
    pub(crate) fn is_drained(&self) -> bool {
        self.is_drained
    }

    /// Returns a frame in this client's coding. It must be the next frame that the client gets.
    pub fn encode(&mut self, frame: &Frame) -> Bytes {
        if let Some(whole) = &mut self.sum {
            let (sum, length) = frame.sum();
            whole.0.add(sum);
            whole.1 += length;
        }
        frame.coded(self.coding, self.chunked).clone()
    }

    /// Returns the bytes that come before the first frame.
    pub(crate) fn begin(&mut self) -> Bytes {
        match self.coding {
            Coding::Gzip => {
                self.sum = Some(Box::default());
                chunk_of(GZIP_HEADER, self.chunked)
            }
            Coding::Identity | Coding::Zstd => Bytes::new(),
        }
    }

    /// Writes as many bytes as the socket takes without waiting.
    pub(crate) fn try_write(&mut self, mut bytes: Bytes) -> WriteOutcome {
        while !bytes.is_empty() {
            match self.socket.try_write(&bytes) {
                Ok(0) => return WriteOutcome::Closed,
                Ok(n) => bytes.advance(n),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return WriteOutcome::Partial(bytes),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return WriteOutcome::Closed,
            }
        }
        WriteOutcome::Complete
    }

    /// Writes `own` and then `shared`, as far as the socket takes them without waiting. Short shared bytes are copied
    /// behind `own`: that is cheaper than to hand the kernel two parts.
    pub(crate) fn try_write_after(&mut self, own: &mut Vec<u8>, shared: &Bytes) -> WriteOutcome {
        if shared.len() > COPIED_BYTES {
            return match self.try_write(Bytes::copy_from_slice(own)) {
                WriteOutcome::Complete => self.try_write(shared.clone()),
                WriteOutcome::Partial(rest) => WriteOutcome::Partial([&rest[..], shared].concat().into()),
                WriteOutcome::Closed => WriteOutcome::Closed,
            };
        }
        own.extend_from_slice(shared);
        match self.socket.try_write(own) {
            Ok(0) => WriteOutcome::Closed,
            Ok(n) if n == own.len() => WriteOutcome::Complete,
            Ok(n) => self.try_write(Bytes::copy_from_slice(&own[n..])),
            Err(e) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&e.kind()) => {
                self.try_write(Bytes::copy_from_slice(own))
            }
            Err(_) => WriteOutcome::Closed,
        }
    }

    /// Returns whether the client has closed its side. What the client sends is read and thrown away.
    pub fn has_left(&self) -> bool {
        let mut scrap = [0; 512];
        // Of a client that floods the server only a little is read each time.
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

    /// Returns whether the client has left, or the stream's time is over.
    pub fn is_over(&self) -> bool {
        self.has_left() || self.ends_at <= Instant::now()
    }

    /// Moves the end of the stream to `ends_at`, unless it ends before, or drains already.
    pub(crate) fn drain(&mut self, ends_at: Instant) {
        if !std::mem::replace(&mut self.is_drained, true) && ends_at < self.ends_at {
            self.planned_end = CloseReason::Drain;
            self.ends_at = ends_at;
        }
    }

    /// Writes the planned end of a stream, at which no frame is under way: the reason, after how long the client is to
    /// come back, and the end of the body. A socket that is full ends without them.
    pub(crate) fn close(mut self, retry: Duration) -> CloseReason {
        let mut events = Events::default();
        match self.planned_end {
            CloseReason::Token => {
                events.event(END, r#"{"reason":"token_expired"}"#);
            }
            // Some clients stop for good at the end of a body, in silence, unless their program is told.
            CloseReason::Life | CloseReason::Drain => {
                events.come_back(RECONNECT, self.planned_end.as_str(), retry);
            }
            CloseReason::Left | CloseReason::Stalled | CloseReason::Over => {}
        }
        let mut bytes = if events.is_empty() { Vec::new() } else { self.encode(&events.frame()).to_vec() };
        if let Some(whole) = &self.sum {
            bytes.extend_from_slice(&chunk_of(&whole.0.trailer(whole.1), self.chunked));
        }
        if self.chunked {
            bytes.extend_from_slice(LAST_CHUNK);
        }
        if let WriteOutcome::Complete = self.try_write(bytes.into()) {
            // Bytes unread at close would turn it into a connection reset.
            self.has_left();
        }
        self.planned_end
    }
}
