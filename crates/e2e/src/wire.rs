//! A stream of the map, byte by byte: the head, the chunks, the content coding, the events. It shows what libraries
//! hide, such as the place where a stream was cut.

use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use flate2::write::GzDecoder;
use tutti_load::sse::{CONNECTION_EVENTS, Event};
use tutti_load::watch::Viewer;
use zstd::stream::{raw, write, zio};

/// A response that is being read.
#[derive(Default)]
pub struct Wire {
    /// The head in lower case. It is empty until all of it has come.
    pub head: String,
    /// What the client holds.
    pub viewer: Viewer,
    /// How long to wait before coming back, as the last `retry` said.
    pub retry: Duration,
    /// Compressed bytes of the body, without what chunks add.
    pub body_bytes: usize,
    /// Whether the last chunk has come.
    pub ended: bool,
    decoder: Decoder,
    unread: Vec<u8>,
    text: Vec<u8>,
}

impl Wire {
    /// Makes the response to a client that was shown something before.
    pub fn after(viewer: Viewer) -> Self {
        Self { viewer, ..Self::default() }
    }

    /// Returns the request that resumes from what the viewer has, for an HTTP version such as `1.1`.
    pub fn request(&self, path: &str, version: &str, accept_encoding: Option<&str>) -> String {
        let mut request = format!("GET {path} HTTP/{version}\r\nhost: edge\r\n");
        if let Some(codings) = accept_encoding {
            request += &format!("accept-encoding: {codings}\r\n");
            if codings.contains("zstd") {
                // Browsers send this header. The edge sends Zstandard to no other client.
                request += "sec-fetch-mode: cors\r\n";
            }
        }
        if !self.viewer.last_id.is_empty() {
            request += &format!("last-event-id: {}\r\n", self.viewer.last_id);
        }
        request + "\r\n"
    }

    /// Returns a header of the response, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Reads the bytes that came next.
    ///
    /// # Errors
    /// If they are not what HTTP, the content coding or the events of the map require.
    pub fn take(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.take_each(bytes, |_| Ok(()))
    }

    /// Reads the bytes that came next, and calls `look` after each event that has an id.
    ///
    /// # Errors
    /// If the bytes are not what HTTP, the content coding or the events of the map require, or if `look` fails.
    pub fn take_each(
        &mut self,
        bytes: &[u8],
        look: impl FnMut(&Viewer) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.unread.extend_from_slice(bytes);
        if self.head.is_empty() {
            let Some(end) = find(&self.unread, b"\r\n\r\n") else { return Ok(()) };
            let head: Vec<u8> = self.unread.drain(..end + 4).collect();
            self.head = String::from_utf8(head).context("the head")?.to_ascii_lowercase();
            ensure!(self.head.starts_with("http/1.1 200 ") || self.head.starts_with("http/1.0 200 "));
            self.decoder = Decoder::of(self.header("content-encoding"))?;
        }
        let coded = if self.is_chunked() { self.inside()? } else { std::mem::take(&mut self.unread) };
        self.body_bytes += coded.len();
        self.text.append(&mut self.decoder.decode(&coded).context("decompressing")?);
        let heard = hear(&self.text, &mut self.viewer, &mut self.retry, look)?;
        self.text.drain(..heard);
        Ok(())
    }

    /// Returns the viewer after the end of the connection.
    ///
    /// # Errors
    /// If the connection ended in the middle of something: before the last chunk, the checksum of gzip or the end of
    /// an event.
    pub fn finish(self) -> anyhow::Result<Viewer> {
        ensure!(!self.head.is_empty(), "it ended before the body");
        ensure!(self.ended || !self.is_chunked(), "it ended without a last chunk");
        ensure!(self.unread.is_empty(), "it ended in the middle of a chunk, or after the last");
        ensure!(self.text.is_empty(), "it ended in the middle of {:?}", String::from_utf8_lossy(&self.text));
        self.decoder.finish().context("it ended before the end of what was compressed")?;
        Ok(self.viewer)
    }

    fn is_chunked(&self) -> bool {
        self.header("transfer-encoding") == Some("chunked")
    }

    /// Takes the content of all chunks that are complete.
    fn inside(&mut self) -> anyhow::Result<Vec<u8>> {
        let (mut inside, mut at) = (Vec::new(), 0);
        while let Some(length) = find(&self.unread[at..], b"\r\n") {
            ensure!(!self.ended, "something came after the last chunk");
            let size = std::str::from_utf8(&self.unread[at..at + length]).context("a chunk's size")?;
            let size = usize::from_str_radix(size, 16).context("a chunk's size")?;
            let begin = at + length + 2;
            let Some(end) = self.unread.get(begin + size..begin + size + 2) else { break };
            ensure!(end == b"\r\n", "a chunk is longer than it says");
            inside.extend_from_slice(&self.unread[begin..begin + size]);
            self.ended = size == 0;
            at = begin + size + 2;
        }
        self.unread.drain(..at);
        Ok(inside)
    }
}

/// Whether a stream consists of one `busy` event whose reason begins with this text, and says when to come back.
pub fn is_busy(text: &str, reason: &str) -> bool {
    text.starts_with(&format!("event: busy\ndata: {{\"reason\":\"{reason}"))
        && text.contains("\nretry: ")
        && text.find("\n\n") == Some(text.len() - 2)
}

/// Returns what a new viewer of this text holds. An event that is not complete at its end is ignored.
///
/// # Errors
/// If an event is not one of the map.
pub fn heard(text: &[u8]) -> anyhow::Result<Viewer> {
    let mut viewer = Viewer::default();
    hear(text, &mut viewer, &mut Duration::default(), |_| Ok(()))?;
    Ok(viewer)
}

/// Passes all complete events to a viewer. Returns the number of bytes that they have.
fn hear(
    text: &[u8],
    viewer: &mut Viewer,
    retry: &mut Duration,
    mut look: impl FnMut(&Viewer) -> anyhow::Result<()>,
) -> anyhow::Result<usize> {
    // Tests send ASCII only, so no character is cut in two.
    let text = std::str::from_utf8(text).context("events")?;
    let mut at = 0;
    while let Some(length) = text[at..].find("\n\n") {
        let event = event_of(&text[at..at + length])?;
        *retry = event.retry.unwrap_or(*retry);
        let has_id = !event.id.is_empty();
        // A viewer holds neither the area of a box nor the state of the connection.
        let name = event.event.as_str();
        if name != "view" && !CONNECTION_EVENTS.contains(&name) {
            viewer.hear(&event)?;
        } else if has_id {
            viewer.last_id = event.id;
        }
        if has_id {
            look(viewer)?;
        }
        at += length + 2;
    }
    Ok(at)
}

fn event_of(block: &str) -> anyhow::Result<Event> {
    let mut event = Event { event: String::new(), data: String::new(), id: String::new(), retry: None };
    for line in block.lines() {
        let (name, value) = line.split_once(": ").with_context(|| format!("a line: {line:?}"))?;
        match name {
            "event" => event.event = value.to_owned(),
            "data" => event.data = value.to_owned(),
            "id" => event.id = value.to_owned(),
            "retry" => event.retry = Some(Duration::from_millis(value.parse().context("retry")?)),
            "" => {} // a comment
            _ => bail!("a line of an unknown name: {line:?}"),
        }
    }
    Ok(event)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// A decoder of a content coding, which decodes bytes as they come.
#[derive(Default)]
enum Decoder {
    #[default]
    Plain,
    Gzip(Box<GzDecoder<Vec<u8>>>),
    Zstd(Box<write::Decoder<'static, Vec<u8>>>),
}

impl Decoder {
    fn of(coding: Option<&str>) -> anyhow::Result<Self> {
        Ok(match coding {
            None => Self::Plain,
            Some("gzip") => Self::Gzip(Box::new(GzDecoder::new(Vec::new()))),
            Some("zstd") => {
                // The decoder notices the end of a frame only if its buffer takes all of it.
                let writer = zio::Writer::new_with_capacity(Vec::new(), raw::Decoder::new()?, 1 << 20);
                Self::Zstd(Box::new(write::Decoder::with_writer(writer)))
            }
            Some(other) => bail!("a coding that was not asked for: {other}"),
        })
    }

    /// Decodes bytes, and returns all text that can be decoded so far.
    fn decode(&mut self, coded: &[u8]) -> io::Result<Vec<u8>> {
        let text = match self {
            Self::Plain => return Ok(coded.to_vec()),
            Self::Gzip(decoder) => {
                decoder.write_all(coded)?;
                decoder.flush()?;
                decoder.get_mut()
            }
            Self::Zstd(decoder) => {
                decoder.write_all(coded)?;
                decoder.flush()?;
                decoder.get_mut()
            }
        };
        Ok(std::mem::take(text))
    }

    /// Checks that the coded stream has ended.
    fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain => Ok(()),
            Self::Gzip(decoder) => decoder.finish().map(drop),
            Self::Zstd(decoder) => decoder.finish().map(drop),
        }
    }
}
