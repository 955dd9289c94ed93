//! How much of what a connection sends is handed on to actix-web: one request at a time, and of its body no more
//! than its handler takes.
//!
//! actix-web decodes all that it has read, some 4,800 small requests, before it looks at the answers that wait
//! to be written. So it is handed the head of a request, then its body, and the next head once the answer has been
//! written. What was read beyond that is held here: a part of one read at most. The parsers here only find where
//! a head or body ends. If they disagree with actix-web's about a malformed request, that request waits for more,
//! or gets more, than it should, until its time is over; nothing is understood differently by it.

/// Bytes that are read from the socket at once.
const READ_BYTES: usize = 8 * 1024;
/// Bytes of a body, its chunks' frames included, that are handed on before the handler has taken what came before.
const BODY_BYTES: usize = 32 * 1024;

/// How the end of a request's body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// The body has this many bytes; of a request without a body, 0.
    Length(u64),
    /// The body comes in chunks.
    Chunked,
    /// All that follows is the body: a client that wants another protocol.
    ToEnd,
}

/// Where a connection is within what its client sends.
pub(crate) struct Inflow {
    phase: Phase,
    /// What was read beyond what may be handed on.
    held: Vec<u8>,
}

enum Phase {
    /// A head, or the pause before it.
    Head(Head),
    /// A head was handed on whole; actix-web has not made a request of it yet.
    Decoding,
    /// The body of a request, or the wait for its answer once all of the body was handed on.
    Body(Body),
}

impl Default for Inflow {
    fn default() -> Self {
        Self { phase: Phase::Head(Head::default()), held: Vec::new() }
    }
}

impl Inflow {
    /// Whether actix-web has made a request of the last head that it was handed, and has not answered it yet.
    pub(crate) fn is_being_answered(&self) -> bool {
        matches!(&self.phase, Phase::Body(body) if !body.is_answered)
    }

    /// Whether a request has begun whose body, if it has one, may not have ended yet.
    pub(crate) fn is_in_a_request(&self) -> bool {
        matches!(&self.phase, Phase::Body(_))
    }

    /// Takes note that actix-web has made a request of what it was handed.
    pub(crate) fn begin(&mut self, framing: Framing) {
        self.phase = Phase::Body(Body::new(framing));
    }

    /// Takes note that the request was answered. The next may come once all of its body was handed on, which
    /// nobody may want any more.
    pub(crate) fn end(&mut self) {
        if let Phase::Body(body) = &mut self.phase {
            body.is_answered = true;
        }
        self.go_on();
    }

    fn go_on(&mut self) {
        if matches!(&self.phase, Phase::Body(body) if body.is_answered && body.is_over()) {
            self.phase = Phase::Head(Head::default());
        }
    }

    /// Returns how many bytes may be handed on now; `taken` bytes of the body were taken by its handler.
    pub(crate) fn may_read(&mut self, taken: u64) -> usize {
        match &mut self.phase {
            Phase::Head(_) => READ_BYTES,
            Phase::Decoding => 0,
            Phase::Body(body) => body.may_read(taken).min(READ_BYTES),
        }
    }

    /// Moves what is held into `buffer`, as much as fits. Returns the number of bytes.
    pub(crate) fn unhold(&mut self, buffer: &mut [u8]) -> usize {
        let n = self.held.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.held[..n]);
        self.held.drain(..n);
        if self.held.is_empty() {
            self.held = Vec::new();
        }
        n
    }

    /// Takes note of bytes that were read, and holds those that may not be handed on yet. Returns the number of those
    /// that may.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> usize {
        let ours = match &mut self.phase {
            Phase::Head(head) => match head.end_in(bytes) {
                Some(end) => {
                    self.phase = Phase::Decoding;
                    end
                }
                None => bytes.len(),
            },
            Phase::Decoding => 0,
            Phase::Body(body) => body.read(bytes),
        };
        self.go_on();
        if ours < bytes.len() {
            self.held.splice(..0, bytes[ours..].iter().copied());
        }
        ours
    }
}

/// Finds the end of a head: an empty line after one that is not.
#[derive(Default)]
struct Head {
    has_line: bool,
    line: Line,
}

/// What there is of the line that is being read.
#[derive(Default, PartialEq, Eq)]
enum Line {
    #[default]
    Empty,
    /// A carriage return at its start.
    Return,
    Text,
}

impl Head {
    /// Returns the number of bytes up to the end of the head, if it is among these.
    fn end_in(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' if self.line == Line::Text => {
                    self.has_line = true;
                    self.line = Line::Empty;
                }
                b'\n' if self.has_line => return Some(at + 1),
                b'\n' => self.line = Line::Empty,
                b'\r' if self.line == Line::Empty => self.line = Line::Return,
                _ => self.line = Line::Text,
            }
        }
        None
    }
}

struct Body {
    rest: Rest,
    /// Bytes of the body itself that were handed on.
    data: u64,
    /// All bytes that were handed on since the handler had taken everything.
    untaken: usize,
    is_answered: bool,
}

/// What is still to come of a body.
enum Rest {
    Length(u64),
    Chunked(Chunked),
    ToEnd,
}

impl Body {
    fn new(framing: Framing) -> Self {
        let rest = match framing {
            Framing::Length(length) => Rest::Length(length),
            Framing::Chunked => Rest::Chunked(Chunked::Size(0)),
            Framing::ToEnd => Rest::ToEnd,
        };
        Self { rest, data: 0, untaken: 0, is_answered: false }
    }

    fn is_over(&self) -> bool {
        matches!(self.rest, Rest::Length(0) | Rest::Chunked(Chunked::Over))
    }

    fn may_read(&mut self, taken: u64) -> usize {
        if taken >= self.data {
            self.untaken = 0;
        }
        if self.is_over() { 0 } else { BODY_BYTES.saturating_sub(self.untaken) }
    }

    fn read(&mut self, bytes: &[u8]) -> usize {
        let (ours, data) = match &mut self.rest {
            Rest::Length(rest) => {
                let ours = bytes.len().min(usize::try_from(*rest).unwrap_or(usize::MAX));
                *rest -= ours as u64;
                (ours, ours)
            }
            Rest::Chunked(chunked) => chunked.read(bytes),
            Rest::ToEnd => (bytes.len(), bytes.len()),
        };
        self.data += data as u64;
        self.untaken += ours;
        ours
    }
}

/// Finds the end of a body in chunks (RFC 9112, 7.1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Chunked {
    /// The size of a chunk, as far as it was read.
    Size(u64),
    /// What may stand behind the size of a chunk, which is given here, up to the end of its line.
    Extension(u64),
    /// The chunk's bytes that are still to come.
    Data(u64),
    /// The line's end behind a chunk.
    DataEnd,
    /// A line of the trailer; whether it is empty so far.
    Trailer(bool),
    Over,
}

impl Chunked {
    /// Returns how many of these bytes belong to the body, and how many of them are its data.
    fn read(&mut self, bytes: &[u8]) -> (usize, usize) {
        let (mut at, mut data) = (0, 0);
        while at < bytes.len() && *self != Self::Over {
            let byte = bytes[at];
            let line_is_over = byte == b'\n';
            *self = match *self {
                Self::Data(rest) => {
                    let n = (bytes.len() - at).min(usize::try_from(rest).unwrap_or(usize::MAX));
                    at += n;
                    data += n;
                    let rest = rest - n as u64;
                    *self = if rest == 0 { Self::DataEnd } else { Self::Data(rest) };
                    continue;
                }
                Self::Size(0) | Self::Extension(0) if line_is_over => Self::Trailer(true),
                Self::Size(size) | Self::Extension(size) if line_is_over => Self::Data(size),
                Self::Size(size) => match char::from(byte).to_digit(16) {
                    Some(digit) => Self::Size(size.saturating_mul(16).saturating_add(digit.into())),
                    None => Self::Extension(size),
                },
                Self::DataEnd if line_is_over => Self::Size(0),
                Self::Trailer(true) if line_is_over => Self::Over,
                Self::Trailer(_) if line_is_over => Self::Trailer(true),
                Self::Trailer(is_empty) => Self::Trailer(is_empty && byte == b'\r'),
                same @ (Self::Extension(_) | Self::DataEnd | Self::Over) => same,
            };
            at += 1;
        }
        (at, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands all of `bytes` in, in pieces of this length; what may be handed on before an answer comes.
    fn handed_on(inflow: &mut Inflow, bytes: &[u8], piece: usize, framing: Framing) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = bytes;
        loop {
            if inflow.may_read(u64::MAX) == 0 && !inflow.is_being_answered() {
                inflow.begin(framing);
            }
            let most = inflow.may_read(u64::MAX).min(piece);
            let mut buffer = vec![0; most];
            let mut n = inflow.unhold(&mut buffer);
            if n == 0 {
                n = most.min(rest.len());
                buffer[..n].copy_from_slice(&rest[..n]);
                rest = &rest[n..];
            }
            if n == 0 {
                return out;
            }
            let ours = inflow.read(&buffer[..n]);
            out.extend_from_slice(&buffer[..ours]);
        }
    }

    #[test]
    fn one_request_is_handed_on_whole_and_the_next_when_it_was_answered() {
        let plain = "\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n";
        let bare = "GET / HTTP/1.1\nhost: a\n\n";
        let chunked = "POST / HTTP/1.1\r\nhost: a\r\n\r\n\
            5;a=1f\r\nab\n\nc\r\n19\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n\r\n\r\n0\r\nx: y\r\n\r\n";
        let length = "POST / HTTP/1.1\r\nhost: a\r\n\r\nabc\r\n\r\n";
        for (request, framing) in [
            (plain, Framing::Length(0)),
            (bare, Framing::Length(0)),
            (chunked, Framing::Chunked),
            (length, Framing::Length(7)),
        ] {
            for piece in [1, 2, 3, 7, 1000] {
                let mut inflow = Inflow::default();
                let three = request.repeat(3);
                let mut out = handed_on(&mut inflow, three.as_bytes(), piece, framing);
                for n in 1..=3 {
                    assert_eq!(std::str::from_utf8(&out), Ok(&*request.repeat(n)), "{piece}");
                    assert_eq!(inflow.may_read(u64::MAX), 0, "{request:?} {piece}");
                    inflow.end();
                    // The reader goes on where it stopped.
                    let rest = &three.as_bytes()[out.len() + inflow.held.len()..];
                    out.extend(handed_on(&mut inflow, rest, piece, framing));
                }
            }
        }
    }

    #[test]
    fn a_body_is_handed_on_as_its_handler_takes_it() {
        for framing in [Framing::Length(1 << 20), Framing::Chunked, Framing::ToEnd] {
            let mut inflow = Inflow::default();
            inflow.begin(framing);
            let chunks = "1\r\na\r\n".repeat(1 << 14);
            let mut handed = 0;
            while handed < chunks.len() && inflow.may_read(0) > 0 {
                let most = inflow.may_read(0).min(chunks.len() - handed);
                handed += inflow.read(&chunks.as_bytes()[handed..handed + most]);
            }
            assert_eq!(handed, BODY_BYTES, "{framing:?}");
            assert_eq!(inflow.may_read(1), 0, "a part was taken");
            inflow.end();
            assert_eq!(inflow.may_read(u64::MAX), READ_BYTES, "nobody wants it any more, but it is read on");
        }
    }
}
