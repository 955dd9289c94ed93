//! A crowd in front of a waiting room. The people of the crowd join within seconds, wait, go in and leave.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use crate::retry::{any_of, jitter, until_answered};
use crate::sse::{Event, Request, Source};

/// The time between two requests of a person that waits without a stream.
const POLL: Duration = Duration::from_secs(5);
/// Largest number of people that join at the same time. The ports of the machine are limited.
const JOINING: usize = 512;

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Crowd {
    /// Base URLs of edges. Each request and each stream goes to any of them.
    pub edges: Vec<String>,
    /// The room.
    pub room: String,
    /// The number of people.
    pub people: u32,
    /// The time within which they come, evenly spread.
    pub over: Duration,
    /// The number of people that hold a stream open.
    pub streams: u32,
    /// Whether people without a stream never come back. Otherwise they ask for their ticket now and then.
    pub no_shows: bool,
    /// How long people stay inside before they leave.
    pub stay: Duration,
}

/// What has become of the crowd so far.
#[derive(Debug, Default)]
pub struct Figures {
    /// People that have a ticket.
    pub joined: AtomicU64,
    /// People that were admitted.
    pub admitted: AtomicU64,
    /// People that were inside and have left.
    pub done: AtomicU64,
    /// People that lost their place or their turn.
    pub lost: AtomicU64,
    /// Requests that had to be made again.
    pub again: AtomicU64,
    /// Streams that are open now.
    pub streams: AtomicU64,
}

/// One person of the crowd, and what this person has heard.
#[derive(Clone, Debug, Default)]
pub struct Visitor {
    /// The number of the ticket.
    pub ticket: u64,
    /// The token of the ticket.
    pub token: String,
    /// The position and the version of each update, in order.
    pub updates: Vec<(Option<u64>, u64)>,
    /// Updates whose position was greater than the one before.
    pub grew: u64,
    /// The pass, once the visitor was admitted.
    pub pass: Option<String>,
    /// Passes that came on streams.
    pub passes: u64,
    /// Why the place or the turn was lost.
    pub lost: Option<String>,
    /// The reasons of all `reset` events.
    pub resets: Vec<String>,
    /// The states of all `status` events.
    pub statuses: Vec<String>,
    /// Whether the stream has ended for good.
    pub ended: bool,
    /// The last event id.
    pub last_id: String,
}

impl Visitor {
    /// Takes an event in.
    ///
    /// # Errors
    /// If the data of the event is not what its name promises.
    pub fn hear(&mut self, event: &Event) -> anyhow::Result<()> {
        let data: Value =
            serde_json::from_str(&event.data).with_context(|| format!("{}: {}", event.event, event.data))?;
        match event.event.as_str() {
            "queueUpdate" => {
                let position = data["position"].as_u64();
                let version = data["version"].as_u64().context("an update without a version")?;
                anyhow::ensure!(
                    data["ticket"].as_u64() == Some(self.ticket),
                    "an update of another ticket: {}",
                    event.data
                );
                let before = self.updates.last().and_then(|(position, _)| *position);
                if before.zip(position).is_some_and(|(before, now)| now > before) {
                    self.grew += 1;
                }
                self.updates.push((position, version));
            }
            "queueAdmitted" => {
                self.passes += 1;
                self.pass = data["pass"].as_str().map(str::to_owned);
            }
            "queueLost" => self.lost = data["reason"].as_str().map(str::to_owned),
            "queueClosed" => self.lost = Some("closed".to_owned()),
            "end" => self.ended = true,
            "reset" => self.resets.push(data["reason"].as_str().unwrap_or_default().to_owned()),
            "status" => self.statuses.push(data["state"].as_str().unwrap_or_default().to_owned()),
            other => anyhow::bail!("an unknown event {other}"),
        }
        self.last_id.clone_from(&event.id);
        Ok(())
    }
}

impl Crowd {
    /// Lets all people come, wait, go in and leave. Returns what each of them heard.
    ///
    /// # Errors
    /// If a server answers what it must not, such as a refusal of a good token.
    pub async fn run(&self, figures: &Arc<Figures>) -> anyhow::Result<Vec<Visitor>> {
        anyhow::ensure!(!self.edges.is_empty(), "a crowd needs at least one edge");
        let client = Client::builder().connect_timeout(Duration::from_secs(5)).build()?;
        let visitors: Arc<Mutex<Vec<Visitor>>> = Arc::default();
        let joining = Arc::new(tokio::sync::Semaphore::new(JOINING));
        let began = Instant::now();
        let mut people = JoinSet::new();
        for number in 0..self.people {
            let at = began + self.over.mul_f64(f64::from(number) / f64::from(self.people));
            let person = Person {
                crowd: self.clone(),
                client: client.clone(),
                figures: figures.clone(),
                // People with streams are spread evenly over the crowd.
                streams: u64::from(number + 1) * u64::from(self.streams) / u64::from(self.people)
                    > u64::from(number) * u64::from(self.streams) / u64::from(self.people),
            };
            let (visitors, joining) = (visitors.clone(), joining.clone());
            people.spawn(async move {
                sleep_until(at).await;
                let visitor = person.live(&joining).await?;
                visitors.lock().unwrap_or_else(PoisonError::into_inner).push(visitor);
                Ok::<_, anyhow::Error>(())
            });
        }
        while let Some(lived) = people.join_next().await {
            lived??;
        }
        Ok(std::mem::take(&mut *visitors.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

struct Person {
    crowd: Crowd,
    client: Client,
    figures: Arc<Figures>,
    streams: bool,
}

impl Person {
    async fn live(&self, joining: &tokio::sync::Semaphore) -> anyhow::Result<Visitor> {
        let mut visitor = {
            let _one = joining.acquire().await?;
            self.join().await?
        };
        self.figures.joined.fetch_add(1, Ordering::Relaxed);
        while visitor.pass.is_none() && visitor.lost.is_none() {
            if self.streams {
                self.listen(&mut visitor).await?;
            } else if self.crowd.no_shows {
                return Ok(visitor);
            } else {
                sleep(POLL).await;
                let body = self.ask(Method::GET, &visitor, "").await?;
                hear_ticket(&mut visitor, &body);
            }
        }
        if visitor.pass.is_some() && visitor.lost.is_none() {
            self.figures.admitted.fetch_add(1, Ordering::Relaxed);
            let body = self.ask(Method::POST, &visitor, "/claim").await?;
            if body["state"] == "claimed" {
                sleep(self.crowd.stay).await;
                self.ask(Method::POST, &visitor, "/release").await?;
                self.figures.done.fetch_add(1, Ordering::Relaxed);
                return Ok(visitor);
            }
            visitor.lost = Some("late".to_owned());
        }
        self.figures.lost.fetch_add(1, Ordering::Relaxed);
        Ok(visitor)
    }

    /// Joins, and tries again with the same key until there is an answer.
    async fn join(&self) -> anyhow::Result<Visitor> {
        let key = Uuid::from_u128(rand::random()).to_string();
        let url = |edge: &str| format!("{edge}/v1/rooms/{}/tickets", self.crowd.room);
        let body = self
            .until_answered(
                |edge| self.client.post(url(edge)).header("idempotency-key", &key),
                &[StatusCode::CREATED],
            )
            .await?;
        let mut visitor = Visitor {
            ticket: body["ticket"].as_u64().context("a join without a ticket")?,
            token: body["token"].as_str().context("a join without a token")?.to_owned(),
            ..Visitor::default()
        };
        hear_ticket(&mut visitor, &body);
        Ok(visitor)
    }

    async fn ask(&self, method: Method, visitor: &Visitor, what: &str) -> anyhow::Result<Value> {
        let (room, ticket) = (&self.crowd.room, visitor.ticket);
        let request = |edge: &str| {
            let url = format!("{edge}/v1/rooms/{room}/tickets/{ticket}{what}");
            self.client.request(method.clone(), url).bearer_auth(&visitor.token)
        };
        // A claim that comes too late is answered with 409, and a claim of a ticket that is forgotten with 410.
        self.until_answered(request, &[StatusCode::OK, StatusCode::CONFLICT, StatusCode::GONE]).await
    }

    async fn until_answered(
        &self,
        request: impl Fn(&str) -> reqwest::RequestBuilder,
        good: &[StatusCode],
    ) -> anyhow::Result<Value> {
        until_answered(&self.crowd.edges, &self.figures.again, request, good).await
    }

    /// Follows a stream until it breaks off, or until it says what this person waits for.
    async fn listen(&self, visitor: &mut Visitor) -> anyhow::Result<()> {
        let request = Request {
            url: format!("{}/v1/rooms/{}/stream", self.edge(), self.crowd.room),
            last_event_id: (!visitor.last_id.is_empty()).then(|| visitor.last_id.clone()),
            token: Some(visitor.token.clone()),
        };
        let opening = tokio::time::timeout(Duration::from_secs(10), Source::open_by(&self.client, &request));
        let Ok(Ok(mut source)) = opening.await else {
            self.figures.again.fetch_add(1, Ordering::Relaxed);
            sleep(jitter()).await;
            return Ok(());
        };
        self.figures.streams.fetch_add(1, Ordering::Relaxed);
        let heard = async {
            while let Ok(Some(event)) = source.next().await {
                visitor.hear(&event)?;
                if visitor.pass.is_some() || visitor.lost.is_some() {
                    break;
                }
            }
            Ok(())
        };
        let heard = heard.await;
        self.figures.streams.fetch_sub(1, Ordering::Relaxed);
        if visitor.pass.is_none() {
            sleep(jitter()).await;
        }
        heard
    }

    fn edge(&self) -> &str {
        any_of(&self.crowd.edges)
    }
}

fn hear_ticket(visitor: &mut Visitor, body: &Value) {
    if let Some(pass) = body["pass"].as_str() {
        visitor.pass = Some(pass.to_owned());
    }
    if body["state"] == "gone" || body["status"].is_u64() {
        visitor.lost = Some(body["reason"].as_str().unwrap_or("gone").to_owned());
    }
}
