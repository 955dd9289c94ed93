//! A stream of the map as its bytes come: head, chunks, coding, events. It sees what libraries hide, as where a
//! stream was cut.

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
    /// Its head in small letters; empty until it is whole.
    pub head: String,
    /// What its client holds.
    pub viewer: Viewer,
    /// How long to wait before coming back, as it was last told.
    pub retry: Duration,
    /// Of the body, as it was compressed, without what chunks add.
    pub body_bytes: usize,
    /// Its last chunk came.
    pub ended: bool,
    decoder: Decoder,
    unread: Vec<u8>,
    text: Vec<u8>,
}

impl Wire {
    /// To one who was shown something before.
    pub fn after(viewer: Viewer) -> Self {
        Self { viewer, ..Self::default() }
    }

    /// What to ask, of an HTTP version as `1.1`, for it to go on from where the viewer is.
    pub fn request(&self, path: &str, version: &str, accept_encoding: Option<&str>) -> String {
        let mut request = format!("GET {path} HTTP/{version}\r\nhost: edge\r\n");
        if let Some(codings) = accept_encoding {
            request += &format!("accept-encoding: {codings}\r\n");
            if codings.contains("zstd") {
                // As browsers say it: to others the edge sends no Zstandard.
                request += "sec-fetch-mode: cors\r\n";
            }
        }
        if !self.viewer.last_id.is_empty() {
            request += &format!("last-event-id: {}\r\n", self.viewer.last_id);
        }
        request + "\r\n"
    }

    /// A header of the response, in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Hears what came next.
    ///
    /// # Errors
    /// If it is not what HTTP, its coding or the map's events have there.
    pub fn take(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.take_each(bytes, |_| Ok(()))
    }

    /// The same, with a look at the viewer after each event that has an id.
    ///
    /// # Errors
    /// As [`Wire::take`], and what the look finds.
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

    /// The viewer, after the connection has ended.
    ///
    /// # Errors
    /// If it ended in the middle of something: the last chunk, the sum of gzip, an event.
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

    /// What is in the chunks that are whole.
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

/// Whether the whole of a stream says only that there is no room for it now, for a reason that begins so, and
/// when to come back.
pub fn is_busy(text: &str, reason: &str) -> bool {
    text.starts_with(&format!("event: busy\ndata: {{\"reason\":\"{reason}"))
        && text.contains("\nretry: ")
        && text.find("\n\n") == Some(text.len() - 2)
}

/// What a new viewer of this text holds; the beginning of an event at its end is passed over.
///
/// # Errors
/// If an event is none of the map's.
pub fn heard(text: &[u8]) -> anyhow::Result<Viewer> {
    let mut viewer = Viewer::default();
    hear(text, &mut viewer, &mut Duration::default(), |_| Ok(()))?;
    Ok(viewer)
}

/// Tells a viewer the events that are whole; how many bytes those are.
fn hear(
    text: &[u8],
    viewer: &mut Viewer,
    retry: &mut Duration,
    mut look: impl FnMut(&Viewer) -> anyhow::Result<()>,
) -> anyhow::Result<usize> {
    // The input of tests is ASCII: no letter is cut.
    let text = std::str::from_utf8(text).context("events")?;
    let mut at = 0;
    while let Some(length) = text[at..].find("\n\n") {
        let event = event_of(&text[at..at + length])?;
        *retry = event.retry.unwrap_or(*retry);
        let has_id = !event.id.is_empty();
        // Neither the area of a box nor the state of the connection is anything that a viewer holds.
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

/// Undoes a coding as bytes come.
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
                // It knows that a frame has ended if all of it fits.
                let writer = zio::Writer::new_with_capacity(Vec::new(), raw::Decoder::new()?, 1 << 20);
                Self::Zstd(Box::new(write::Decoder::with_writer(writer)))
            }
            Some(other) => bail!("a coding that was not asked for: {other}"),
        })
    }

    /// All that there is so far.
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

    /// Checks that it came to its end.
    fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain => Ok(()),
            Self::Gzip(decoder) => decoder.finish().map(drop),
            Self::Zstd(decoder) => decoder.finish().map(drop),
        }
    }
}
