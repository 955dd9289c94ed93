//! Bytes of events, encoded once for all clients that see the same.

use std::io::Write as _;
use std::sync::OnceLock;

use bytes::Bytes;

use crate::coding::{Coding, Sum};

/// The text of events, and its bytes in each form that some client needs, each made when the first needs it.
#[derive(Clone, Debug)]
pub struct Frame {
    plain: Body,
    gzip: OnceLock<(Body, Sum)>,
    zstd: OnceLock<Body>,
}

/// One HTTP/1.1 chunk, and the part of it that HTTP/1.0 clients get.
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
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

impl Frame {
    pub(crate) fn new(text: &str) -> Self {
        debug_assert!(!text.is_empty(), "an empty chunk ends a body");
        Self { plain: Body::new(text.as_bytes()), gzip: OnceLock::new(), zstd: OnceLock::new() }
    }

    /// The `id:` line of the event in the frame that is written next, for one client. That frame must have one event
    /// only: a client takes an id as soon as it has read the event.
    pub fn id_line(id: &str) -> Self {
        Self::new(&format!("id: {id}\n"))
    }

    /// Returns the bytes for a client that gets the text as it is, by whether its body is chunked.
    pub fn bytes(&self, chunked: bool) -> &Bytes {
        self.plain.bytes(chunked)
    }

    /// Returns the bytes for a client of any coding.
    pub fn coded(&self, coding: Coding, chunked: bool) -> &Bytes {
        match coding {
            Coding::Identity => self.bytes(chunked),
            Coding::Gzip => self.gzip().0.bytes(chunked),
            Coding::Zstd => {
                self.zstd.get_or_init(|| Body::new(&coding.encode(&self.plain.inside))).bytes(chunked)
            }
        }
    }

    /// Returns the checksum and the length of the text, for the end of gzip.
    pub fn sum(&self) -> (&Sum, u64) {
        (&self.gzip().1, self.plain.inside.len() as u64)
    }

    fn gzip(&self) -> &(Body, Sum) {
        let text = &self.plain.inside;
        self.gzip.get_or_init(|| (Body::new(&Coding::Gzip.encode(text)), Sum::of(text)))
    }
}

/// Wraps `bytes` in one HTTP/1.1 chunk; HTTP/1.0 clients (`chunked` is false) get them bare.
pub fn chunk_of(bytes: &[u8], chunked: bool) -> Bytes {
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

/// Appends the `id:` line of an event whose other lines follow in a chunk of their own.
pub fn push_id_line(id: &str, chunked: bool, bytes: &mut Vec<u8>) {
    if chunked {
        let _ = write!(bytes, "{:x}\r\n", id.len() + 5);
    }
    bytes.extend_from_slice(b"id: ");
    bytes.extend_from_slice(id.as_bytes());
    bytes.extend_from_slice(if chunked { b"\n\r\n" } else { b"\n" });
}

#[cfg(test)]
mod tests {
    use crate::events::Events;

    #[test]
    fn a_chunk_says_its_length_and_a_plain_client_gets_the_inside() {
        let mut events = Events::default();
        events.event("a", "0");
        let frame = events.frame();
        assert_eq!(&frame.bytes(true)[..], b"12\r\nevent: a\ndata: 0\n\n\r\n");
        assert_eq!(&frame.bytes(false)[..], b"event: a\ndata: 0\n\n");
    }
}
