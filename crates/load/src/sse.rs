//! Reads a stream as a browser's EventSource does.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::Context as _;
use eventsource_stream::{EventStream, EventStreamError};
use futures_util::{Stream, StreamExt as _};

pub use eventsource_stream::Event;

type Bytes = Pin<Box<dyn Stream<Item = reqwest::Result<Vec<u8>>> + Send>>;

/// One connection of an EventSource.
pub struct Source {
    events: EventStream<Bytes>,
    /// Milliseconds; 0, none was told.
    retry: Arc<AtomicU64>,
}

/// What to ask for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The stream's URL.
    pub url: String,
    /// Where to go on from.
    pub last_event_id: Option<String>,
    /// A token, for the Authorization header.
    pub token: Option<String>,
}

/// One client for all streams, since each that is made reads all certificates of the machine. It keeps no
/// connection for later: each stream has one of its own, as a browser's EventSource over HTTP/1.1 has.
static ALONE: LazyLock<reqwest::Client> = LazyLock::new(|| {
    let client = reqwest::Client::builder().connect_timeout(Duration::from_secs(5)).pool_max_idle_per_host(0);
    client.build().expect("TLS can be set up")
});

impl Source {
    /// Opens a stream.
    ///
    /// # Errors
    /// If the server does not answer, or not with a stream: with its status and problem text.
    pub async fn open(request: &Request) -> anyhow::Result<Self> {
        Self::open_by(&ALONE, request).await
    }

    /// The same with a client that many share.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub async fn open_by(client: &reqwest::Client, request: &Request) -> anyhow::Result<Self> {
        let mut get = client.get(&request.url).header("accept", "text/event-stream");
        if let Some(id) = &request.last_event_id {
            get = get.header("last-event-id", id);
        }
        if let Some(token) = &request.token {
            get = get.bearer_auth(token);
        }
        let response = get.send().await.with_context(|| format!("opening {}", request.url))?;
        let status = response.status();
        let kind = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
        if status != 200 || !kind.starts_with("text/event-stream") {
            let text = response.text().await.unwrap_or_default();
            anyhow::bail!("{} answered {status}: {text}", request.url);
        }
        let retry = Arc::new(AtomicU64::new(0));
        let told = retry.clone();
        let bytes: Bytes = Box::pin(response.bytes_stream().map(move |chunk| {
            let chunk = chunk.map(|c| c.to_vec());
            if let Some(after) = chunk.as_ref().ok().and_then(|chunk| retry_of(chunk)) {
                told.store(after, Ordering::Relaxed);
            }
            chunk
        }));
        let mut events = EventStream::new(bytes);
        if let Some(id) = &request.last_event_id {
            events.set_last_event_id(id.clone());
        }
        Ok(Self { events, retry })
    }

    /// The next event; `None` at the stream's end.
    ///
    /// # Errors
    /// If the connection breaks, or what came is no event stream.
    pub async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        match self.events.next().await {
            None => Ok(None),
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(EventStreamError::Transport(error))) => Err(error).context("the stream broke off"),
            Some(Err(error)) => Err(anyhow::anyhow!("not an event stream: {error}")),
        }
    }

    /// The last id, from events and from ids that stood alone.
    pub fn last_event_id(&self) -> &str {
        self.events.last_event_id()
    }

    /// How long to wait before coming back, as the server last said.
    pub fn retry(&self) -> Option<Duration> {
        let after = self.retry.load(Ordering::Relaxed);
        (after > 0).then(|| Duration::from_millis(after))
    }
}

/// The parser passes over a `retry:` without an event. Edges begin a chunk with it.
fn retry_of(chunk: &[u8]) -> Option<u64> {
    let line = chunk.strip_prefix(b"retry: ".as_slice())?.split(|byte| *byte == b'\n').next()?;
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}
