//! Server-Sent Events, written once for all clients that see the same.

use std::fmt::{Display, Write as _};
use std::io::Write as _;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::sse::coding::{Coding, Sum};

/// Bytes for many clients, in each form that some of them need.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    plain: Body,
    gzip: OnceLock<(Body, Sum)>,
    zstd: OnceLock<Body>,
}

/// One HTTP/1.1 chunk, of which HTTP/1.0 clients get the inside.
#[derive(Clone, Debug)]
struct Body {
    chunk: Bytes,
    inside: Bytes,
}

impl Body {
    fn new(text: &[u8]) -> Self {
        let chunk = chunk_of(text, true);
        let end = chunk.len() - 2;
        Self { inside: chunk.slice(end - text.len()..end), chunk }
    }

    fn bytes(&self, chunked: bool) -> &Bytes {
        if chunked { &self.chunk } else { &self.inside }
    }
}

/// The chunk that ends a body.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

impl Frame {
    fn new(text: &str) -> Self {
        debug_assert!(!text.is_empty(), "an empty chunk ends a body");
        Self { plain: Body::new(text.as_bytes()), gzip: OnceLock::new(), zstd: OnceLock::new() }
    }

    /// The `id:` line of the event in the frame that is written next, for one client. That frame must have one
    /// event only: a client takes the id as soon as it has read the first.
    pub(crate) fn id_line(id: &str) -> Self {
        Self::new(&format!("id: {id}\n"))
    }

    /// The bytes for a client that gets them as they are, by whether its body is chunked.
    pub(crate) fn bytes(&self, chunked: bool) -> &Bytes {
        self.plain.bytes(chunked)
    }

    /// The bytes for a client of any coding.
    pub(crate) fn coded(&self, coding: Coding, chunked: bool) -> &Bytes {
        match coding {
            Coding::Identity => self.bytes(chunked),
            Coding::Gzip => self.gzip().0.bytes(chunked),
            Coding::Zstd => {
                self.zstd.get_or_init(|| Body::new(&coding.encode(&self.plain.inside))).bytes(chunked)
            }
        }
    }

    /// The sum and the length of the text, for the end of gzip.
    pub(crate) fn sum(&self) -> (&Sum, u64) {
        (&self.gzip().1, self.plain.inside.len() as u64)
    }

    fn gzip(&self) -> &(Body, Sum) {
        let text = &self.plain.inside;
        self.gzip.get_or_init(|| (Body::new(&Coding::Gzip.encode(text)), Sum::of(text)))
    }
}

/// Any part of events, for one client.
pub(crate) fn chunk_of(bytes: &[u8], chunked: bool) -> Bytes {
    if !chunked {
        return Bytes::copy_from_slice(bytes);
    }
    let head = format!("{:x}\r\n", bytes.len());
    let mut chunk = Vec::with_capacity(head.len() + bytes.len() + 2);
    chunk.extend_from_slice(head.as_bytes());
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    chunk.into()
}

/// The first line of an event whose other lines follow, in a chunk of their own.
pub(crate) fn push_id_line(id: &str, chunked: bool, bytes: &mut Vec<u8>) {
    if chunked {
        let _ = write!(bytes, "{:x}\r\n", id.len() + 5);
    }
    bytes.extend_from_slice(b"id: ");
    bytes.extend_from_slice(id.as_bytes());
    bytes.extend_from_slice(if chunked { b"\n\r\n" } else { b"\n" });
}

/// The text of some events, each a block with a name and data.
///
/// An `id:` or `retry:` belongs to an event. Many client libraries hand a block without data to their program as
/// an empty message, and a comment to nobody; so neither is ever written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events(String);

impl Events {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A named event; `data` must be one line. No `id:`.
    pub(crate) fn event(&mut self, name: &str, data: &str) -> &mut Self {
        debug_assert!(!data.contains(['\n', '\r']), "data is one line");
        let _ = write!(self.0, "event: {name}\ndata: {data}\n\n");
        self
    }

    /// A named event whose data may have line feeds, but no carriage returns. No `id:`.
    pub(crate) fn lines(&mut self, name: &str, data: &str) -> &mut Self {
        debug_assert!(!data.contains('\r'), "a stream turns it into a line feed");
        let _ = writeln!(self.0, "event: {name}");
        for line in data.split('\n') {
            let _ = writeln!(self.0, "data: {line}");
        }
        self.0.push('\n');
        self
    }

    /// Moves the client's last id, by the last of these events; where there is none, by a heartbeat. All events
    /// that the id covers must have been sent before.
    pub(crate) fn id(&mut self, id: &str) -> &mut Self {
        self.field("id", id)
    }

    /// Tells the client how long it waits before it comes back; in the same event as [`Events::id`] would.
    pub(crate) fn retry(&mut self, after: Duration) -> &mut Self {
        self.field("retry", after.as_millis())
    }

    /// One more field of the last event.
    fn field(&mut self, name: &str, value: impl Display) -> &mut Self {
        if self.is_empty() {
            self.heartbeat();
        }
        // The blank line that ends the event is taken back.
        self.0.pop();
        let _ = write!(self.0, "{name}: {value}\n\n");
        self
    }

    /// An event that says only that the connection is alive, and what time it is here (milliseconds since 1970).
    /// An EventSource passes over it unless its program listens to that name; a comment would reach no program.
    pub(crate) fn heartbeat(&mut self) -> &mut Self {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        self.event("heartbeat", &format!(r#"{{"at":{at}}}"#))
    }

    /// An event after which the body ends, and the client is to come back: with the reason, and after how long.
    pub(crate) fn come_back(&mut self, name: &str, reason: &str, after: Duration) -> &mut Self {
        let data = format!(r#"{{"reason":"{reason}","retryMs":{}}}"#, after.as_millis());
        self.event(name, &data).retry(after)
    }

    /// An array of JSON objects as the data of an event; none, no event.
    pub(crate) fn array<'a>(&mut self, name: &str, items: impl Iterator<Item = &'a str>) -> &mut Self {
        let mut items = items.peekable();
        if items.peek().is_none() {
            return self;
        }
        let _ = write!(self.0, "event: {name}\ndata: [");
        for (i, item) in items.enumerate() {
            if i > 0 {
                self.0.push(',');
            }
            self.0.push_str(item);
        }
        self.0.push_str("]\n\n");
        self
    }

    /// These events after those.
    pub(crate) fn append(&mut self, events: &Self) {
        self.0.push_str(&events.0);
    }

    /// As a chunk; there must be something in it, for an empty chunk ends a body.
    pub(crate) fn frame(&self) -> Frame {
        Frame::new(&self.0)
    }

    /// Bytes of the text.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The text itself.
    #[cfg(test)]
    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_belongs_to_the_event_before_it() {
        let mut events = Events::default();
        events.event("a", "1").event("b", "2").id("x");
        assert_eq!(events.clone().into_text(), "event: a\ndata: 1\n\nevent: b\ndata: 2\nid: x\n\n");
    }

    #[test]
    fn every_block_has_a_name_and_data() {
        let mut events = Events::default();
        events.id("x").retry(Duration::from_secs(1));
        let text = events.into_text();
        let (head, rest) = text.split_at("event: heartbeat\ndata: {\"at\":".len());
        assert_eq!(head, "event: heartbeat\ndata: {\"at\":");
        assert!(rest.ends_with("}\nid: x\nretry: 1000\n\n"), "{rest}");
        assert!(rest.starts_with(|first: char| first.is_ascii_digit()), "{rest}");
    }

    #[test]
    fn a_client_that_is_to_come_back_hears_why_and_when() {
        let mut events = Events::default();
        events.come_back("reconnect", "drain", Duration::from_millis(700));
        let expected = "event: reconnect\ndata: {\"reason\":\"drain\",\"retryMs\":700}\nretry: 700\n\n";
        assert_eq!(events.into_text(), expected);
    }

    #[test]
    fn a_chunk_says_its_length_and_a_plain_client_gets_the_inside() {
        let mut events = Events::default();
        events.event("a", "0");
        let frame = events.frame();
        assert_eq!(&frame.bytes(true)[..], b"12\r\nevent: a\ndata: 0\n\n\r\n");
        assert_eq!(&frame.bytes(false)[..], b"event: a\ndata: 0\n\n");
    }

    #[test]
    fn an_empty_array_is_no_event() {
        let mut events = Events::default();
        events.array("a", [].into_iter()).array("b", ["1", "2"].into_iter());
        assert_eq!(events.into_text(), "event: b\ndata: [1,2]\n\n");
    }
}
