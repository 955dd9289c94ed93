//! A client that reads a stream as the EventSource of a browser does.

use std::pin::Pin;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::Context as _;
use eventsource_stream::{EventStream, EventStreamError};
use futures_util::{Stream, StreamExt as _};

pub use eventsource_stream::Event;

type Bytes = Pin<Box<dyn Stream<Item = reqwest::Result<Vec<u8>>> + Send>>;

/// The names of events about the connection alone. A program that does not listen to them misses nothing.
pub const CONNECTION_EVENTS: [&str; 3] = ["heartbeat", "busy", "reconnect"];

/// One connection of an EventSource.
pub struct Source {
    events: EventStream<Bytes>,
    retry: Option<Duration>,
}

/// The request that opens a stream.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The URL of the stream.
    pub url: String,
    /// The id from which the stream resumes.
    pub last_event_id: Option<String>,
    /// A token, for the Authorization header.
    pub token: Option<String>,
}

/// The client of all streams: each new client reads all certificates of the machine. It keeps no connection for
/// later, because each stream has one of its own, as in a browser over HTTP/1.1.
static ALONE: LazyLock<reqwest::Client> = LazyLock::new(|| {
    let client = reqwest::Client::builder().connect_timeout(Duration::from_secs(5)).pool_max_idle_per_host(0);
    client.build().expect("TLS can be set up")
});

impl Source {
    /// Opens a stream.
    ///
    /// # Errors
    /// If the server does not answer, or answers with anything but a stream. The error has the status and the body.
    pub async fn open(request: &Request) -> anyhow::Result<Self> {
        Self::open_by(&ALONE, request).await
    }

    /// Opens a stream with a client that others use, too.
    ///
    /// # Errors
    /// If the server does not answer, or answers with anything but a stream.
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
        let bytes: Bytes = Box::pin(response.bytes_stream().map(|chunk| chunk.map(|c| c.to_vec())));
        let mut events = EventStream::new(bytes);
        if let Some(id) = &request.last_event_id {
            events.set_last_event_id(id.clone());
        }
        Ok(Self { events, retry: None })
    }

    /// Returns the next event that is about the content of the stream, and so is none of [`CONNECTION_EVENTS`].
    /// Returns `None` at the end of the stream.
    ///
    /// # Errors
    /// If the connection breaks off, or if what comes is not an event stream.
    pub async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            let event = match self.events.next().await {
                None => return Ok(None),
                Some(Ok(event)) => event,
                Some(Err(EventStreamError::Transport(error))) => {
                    return Err(error).context("the stream broke off");
                }
                Some(Err(error)) => anyhow::bail!("not an event stream: {error}"),
            };
            self.retry = event.retry.or(self.retry);
            if !CONNECTION_EVENTS.contains(&event.event.as_str()) {
                return Ok(Some(event));
            }
        }
    }

    /// Returns the last id of any event.
    pub fn last_event_id(&self) -> &str {
        self.events.last_event_id()
    }

    /// Returns how long to wait before coming back, as the server last said.
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }
}
