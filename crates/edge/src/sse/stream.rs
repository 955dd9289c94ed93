//! One client's stream: its socket, and on what terms it has it.

use std::io::ErrorKind;
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use bytes::{Buf as _, Bytes};
use socket2::SockRef;
use tokio::time::Instant;

use crate::sse::coding::{Coding, GZIP_HEADER, Sum};
use crate::sse::frame::{Events, Frame, LAST_CHUNK, chunk_of};
use crate::sse::limits::Counted;
use crate::sse::pipe::PipeWriter;

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
    /// What it showed is over, and it was told so.
    Over,
}

impl End {
    pub(crate) fn as_str(self) -> &'static str {
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

/// Shared bytes are copied for a client up to this length.
const COPIED_BYTES: usize = 8 * 1024;

/// Where a stream is written to.
pub(crate) enum Socket {
    /// A client.
    Client(TcpStream),
    /// A part of a combined stream: who joins the parts reads the other end.
    Part(PipeWriter),
}

impl Socket {
    fn try_write(&self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            // Past the runtime, which would look first whether it believes that the socket takes something.
            Self::Client(socket) => match SockRef::from(socket).send(bytes) {
                // It has to know that there is something to wait for.
                Err(e) if e.kind() == ErrorKind::WouldBlock => socket.try_write(bytes),
                sent => sent,
            },
            Self::Part(pipe) => pipe.try_write(bytes),
        }
    }

    fn try_read(&self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Client(socket) => socket.try_read(bytes),
            Self::Part(pipe) if pipe.is_closed() => Ok(0),
            Self::Part(_) => Err(ErrorKind::WouldBlock.into()),
        }
    }

    /// Waits until it takes more.
    pub(crate) async fn writable(&self) -> std::io::Result<()> {
        match self {
            Self::Client(socket) => socket.writable().await,
            Self::Part(pipe) => {
                pipe.writable().await;
                Ok(())
            }
        }
    }
}

/// A client's socket and terms.
pub(crate) struct Stream {
    pub(crate) socket: Socket,
    pub(crate) chunked: bool,
    pub(crate) coding: Coding,
    /// Of gzip: the sum and length of all that its client got or is about to get.
    pub(crate) sum: Option<Box<(Sum, u64)>>,
    pub(crate) ends_at: Instant,
    pub(crate) end: End,
    pub(crate) last_write: Instant,
    /// Its end was drawn into the drain window, unless it was to end before.
    pub(crate) drained: bool,
    /// Counts it; a part of a combined stream is counted with the whole.
    pub(crate) _counted: Option<Counted>,
}

/// What a write left over.
pub(crate) enum Written {
    All,
    Rest(Bytes),
    Gone,
}

impl Stream {
    /// A frame as this client gets it; it must be the next that it gets.
    pub(crate) fn encode(&mut self, frame: &Frame) -> Bytes {
        if let Some(whole) = &mut self.sum {
            let (sum, length) = frame.sum();
            whole.0.add(sum);
            whole.1 += length;
        }
        frame.coded(self.coding, self.chunked).clone()
    }

    /// What comes before the first frame.
    pub(crate) fn begin(&mut self) -> Bytes {
        match self.coding {
            Coding::Gzip => {
                self.sum = Some(Box::default());
                chunk_of(GZIP_HEADER, self.chunked)
            }
            Coding::Identity | Coding::Zstd => Bytes::new(),
        }
    }

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

    /// The same with what others get too, after something of its own. Where that is small it is copied
    /// behind it: cheaper than to hand the kernel two parts.
    pub(crate) fn try_write_after(&mut self, own: &mut Vec<u8>, shared: &Bytes) -> Written {
        if shared.len() > COPIED_BYTES {
            return match self.try_write(Bytes::copy_from_slice(own)) {
                Written::All => self.try_write(shared.clone()),
                Written::Rest(rest) => Written::Rest([&rest[..], shared].concat().into()),
                Written::Gone => Written::Gone,
            };
        }
        own.extend_from_slice(shared);
        match self.socket.try_write(own) {
            Ok(0) => Written::Gone,
            Ok(n) if n == own.len() => Written::All,
            Ok(n) => self.try_write(Bytes::copy_from_slice(&own[n..])),
            Err(e) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&e.kind()) => {
                self.try_write(Bytes::copy_from_slice(own))
            }
            Err(_) => Written::Gone,
        }
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

    /// Whether its client has left, or its time is over.
    pub(crate) fn is_over(&self) -> bool {
        self.has_left() || self.ends_at <= Instant::now()
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
            // Some clients stop for good at the end of a body, in silence, unless their program is told.
            End::Life | End::Drain => drop(events.come_back("reconnect", self.end.as_str(), retry)),
            End::Left | End::Stalled | End::Over => {}
        }
        let mut bytes = if events.is_empty() { Vec::new() } else { self.encode(&events.frame()).to_vec() };
        if let Some(whole) = &self.sum {
            bytes.extend_from_slice(&chunk_of(&whole.0.trailer(whole.1), self.chunked));
        }
        if self.chunked {
            bytes.extend_from_slice(LAST_CHUNK);
        }
        if let Written::All = self.try_write(bytes.into()) {
            // Bytes unread at close would turn it into a connection reset.
            self.has_left();
        }
        self.end
    }
}
