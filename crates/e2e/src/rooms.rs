//! Waiting rooms: their service, the edges that use it, and the requests of visitors and administrators.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use tokio::task::JoinHandle;
use tutti::passes::new_key;
use tutti::token::sign;
use tutti_load::crowd::Visitor;
use tutti_load::sse::{Request, Source};

use crate::service::Service;
use crate::testbed::{Edge, Testbed};
use crate::{eventually, free_port, unique, until_there};

/// The secret that signs tokens of users in tests.
pub const SECRET: &str = "a-secret-of-these-tests-and-of-nothing-else";

/// Replicas of the service, and the settings that go with them.
pub struct Rooms {
    /// Kafka, Redis and the folder for files.
    pub testbed: Testbed,
    /// The replicas of the service.
    pub queues: Vec<Service>,
    /// The topic that changes of rooms are relayed to.
    pub topic: String,
    urls: Vec<String>,
    client: Client,
}

/// The ticket of a visitor who has joined.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The number of the ticket.
    pub ticket: u64,
    /// The token of the ticket.
    pub token: String,
    /// The whole answer.
    pub body: Value,
}

impl Rooms {
    /// Starts this many replicas with settings of their own, and waits until all are ready.
    ///
    /// # Panics
    /// If a replica does not become ready.
    pub async fn start(testbed: Testbed, replicas: usize, settings: &[(&str, &str)]) -> Self {
        let key = testbed.folder().join("pass-key.pem");
        std::fs::write(&key, new_key()).expect("the key is written");
        let topic = unique("queueing-system");
        let (mut queues, mut urls) = (Vec::new(), Vec::new());
        for _ in 0..replicas {
            let port = free_port();
            let mut all = vec![
                ("grpc.listen", format!("127.0.0.1:{port}")),
                ("kafka.brokers", testbed.brokers().to_owned()),
                ("passes.key_file", key.to_string_lossy().into_owned()),
                ("relay.topic", topic.clone()),
            ];
            all.extend(settings.iter().map(|(key, value)| (*key, (*value).to_owned())));
            queues.push(testbed.service("tutti-queue", &all));
            urls.push(format!("http://127.0.0.1:{port}"));
        }
        for queue in &queues {
            queue.wait_ready().await;
        }
        // An edge closes a connection after 15 s without a request, perhaps just when the next request is sent.
        let idle = Duration::from_secs(2);
        let client = Client::builder().timeout(Duration::from_secs(20)).pool_idle_timeout(idle).build();
        let client = client.expect("a client");
        Self { testbed, queues, topic, urls, client }
    }

    /// Returns the gRPC URL of each replica.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Starts an edge that uses the replicas, with settings of its own, and waits until it is ready.
    ///
    /// # Panics
    /// If the edge does not become ready.
    pub async fn edge(&self, settings: &[(&str, &str)]) -> Edge {
        let urls = self.urls.join(",");
        let mut all = vec![("queue.urls", urls.as_str()), ("auth.hs256_secret", SECRET)];
        all.extend(settings);
        let edge = self.testbed.edge(&all);
        edge.service.wait_ready().await;
        edge
    }

    /// Makes a request. Returns the status and the body, which is `Null` if it is not JSON.
    ///
    /// # Panics
    /// If the edge does not answer.
    pub async fn call(
        &self,
        method: Method,
        edge: &Edge,
        path: &str,
        token: Option<&str>,
        body: &str,
    ) -> (StatusCode, Value) {
        let mut request = self.client.request(method, format!("{}{path}", edge.url)).body(body.to_owned());
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.expect("the edge answers");
        (answer.status(), answer.json().await.unwrap_or_default())
    }

    /// Repeats a request for as long as the answer is 503. Returns the body.
    ///
    /// # Panics
    /// If the request is refused, or answered with 503 for 90 s.
    pub async fn insist(&self, method: Method, edge: &Edge, path: &str, token: &str, body: &str) -> Value {
        until_there(path, async || match self.call(method.clone(), edge, path, Some(token), body).await {
            (StatusCode::SERVICE_UNAVAILABLE, _) => None,
            (status, body) => {
                assert_eq!(status, 200, "{path}: {body}");
                Some(body)
            }
        })
        .await
    }

    /// Makes a room or changes its settings. Returns the room.
    ///
    /// # Panics
    /// If the request is refused.
    pub async fn put(&self, edge: &Edge, room: &str, settings: &str) -> Value {
        self.insist(Method::PUT, edge, &format!("/v1/rooms/{room}"), &admin(), settings).await
    }

    /// Returns a room as administrators see it.
    ///
    /// # Panics
    /// If the request is refused.
    pub async fn room(&self, edge: &Edge, room: &str) -> Value {
        self.insist(Method::GET, edge, &format!("/v1/rooms/{room}"), &admin(), "").await
    }

    /// Asks to join. Returns the status, the `Retry-After` header and the body.
    ///
    /// # Errors
    /// If the edge does not answer.
    pub async fn ask_to_join(
        &self,
        edge: &Edge,
        room: &str,
        key: &str,
        token: Option<&str>,
    ) -> anyhow::Result<(StatusCode, Option<String>, Value)> {
        let url = format!("{}/v1/rooms/{room}/tickets", edge.url);
        let mut request = self.client.post(url).header("idempotency-key", key);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.context("joining")?;
        let after = answer.headers().get("retry-after").and_then(|v| Some(v.to_str().ok()?.to_owned()));
        Ok((answer.status(), after, answer.json().await?))
    }

    /// Joins with a new idempotency key.
    ///
    /// # Panics
    /// If the request is refused.
    pub async fn join(&self, edge: &Edge, room: &str) -> Joined {
        let (status, _, body) = self.ask_to_join(edge, room, &key(), None).await.expect("the edge answers");
        assert_eq!(status, 201, "{body}");
        Joined::of(body)
    }

    /// Makes a room for one visitor, which two visitors join. Returns the second, who waits, and the stream of that
    /// ticket, on which its position has come.
    ///
    /// # Panics
    /// If a request is refused, or the position does not come.
    pub async fn one_waits(&self, edge: &Edge, room: &str) -> (Joined, Stream) {
        self.put(edge, room, r#"{"maxActive":1,"admitPerSecond":50}"#).await;
        self.join(edge, room).await;
        let waits = self.join(edge, room).await;
        let stream = Stream::open(edge, room, waits.visitor()).await;
        eventually("its place", async || position(&stream.heard()) == Some(1)).await;
        (waits, stream)
    }

    /// Joins with a new idempotency key, and tries again for as long as the answer is 503.
    ///
    /// # Panics
    /// If the request is refused for good, or answered with 503 for 90 s.
    pub async fn join_until_accepted(&self, edge: &Edge, room: &str) -> Joined {
        let key = key();
        until_there("a visitor gets in", async || match self.ask_to_join(edge, room, &key, None).await {
            Ok((status, _, body)) if status.is_success() => Some(Joined::of(body)),
            Ok((status, _, body)) if status != 503 => panic!("{status}: {body}"),
            _ => None,
        })
        .await
    }

    /// Makes a request about a ticket with the token of the ticket. `what` is the end of the path, such as `""` or
    /// `/claim`.
    ///
    /// # Panics
    /// If the edge does not answer.
    pub async fn act(
        &self,
        method: Method,
        edge: &Edge,
        room: &str,
        joined: &Joined,
        what: &str,
    ) -> (StatusCode, Value) {
        let path = format!("/v1/rooms/{room}/tickets/{}{what}", joined.ticket);
        self.call(method, edge, &path, Some(&joined.token), "").await
    }

    /// Returns a ticket.
    ///
    /// # Panics
    /// If the request is refused.
    pub async fn ticket(&self, edge: &Edge, room: &str, joined: &Joined) -> Value {
        let path = format!("/v1/rooms/{room}/tickets/{}", joined.ticket);
        self.insist(Method::GET, edge, &path, &joined.token, "").await
    }

    /// Waits until Kafka has every change of a room, except perhaps for the last pulse.
    ///
    /// # Panics
    /// If Kafka does not get them.
    pub async fn until_relayed(&self, edge: &Edge, room: &str) {
        eventually("Kafka has every change", || async {
            self.room(edge, room).await["figures"]["unrelayed"].as_u64().is_some_and(|n| n <= 1)
        })
        .await;
    }

    /// Returns the changes of a room in Kafka, each once, in their order there. Like any consumer, it drops a change
    /// whose epoch and version are not after those before.
    ///
    /// # Panics
    /// If Kafka does not answer, or a change is not JSON.
    pub fn relayed(&self, room: &str) -> Vec<Value> {
        let mut held: HashMap<u64, u64> = HashMap::new();
        let mut changes = Vec::new();
        for value in read_topic(self.testbed.brokers(), &self.topic) {
            let change: Value = serde_json::from_slice(&value).expect("the relay writes JSON");
            if change["room"] != room {
                continue;
            }
            let (epoch, version) =
                (change["epoch"].as_u64().expect("an epoch"), change["version"].as_u64().expect("a version"));
            let held = held.entry(epoch).or_default();
            if version > *held {
                *held = version;
                changes.push(change);
            }
        }
        changes
    }
}

impl Joined {
    /// Reads the answer to a join.
    ///
    /// # Panics
    /// If it is not one.
    pub fn of(body: Value) -> Self {
        let ticket = body["ticket"].as_u64().expect("a ticket");
        let token = body["token"].as_str().expect("a token").to_owned();
        Self { ticket, token, body }
    }

    /// Returns the visitor of the ticket, who has heard nothing yet.
    pub fn visitor(&self) -> Visitor {
        Visitor { ticket: self.ticket, token: self.token.clone(), ..Visitor::default() }
    }
}

/// The stream of a visitor, which a task follows.
pub struct Stream {
    visitor: Arc<Mutex<Visitor>>,
    task: JoinHandle<()>,
}

/// Returns the position in the last update of a visitor.
pub fn position(visitor: &Visitor) -> Option<u64> {
    visitor.updates.last().and_then(|(position, _)| *position)
}

impl Stream {
    /// Opens the stream, and resumes from what the visitor has heard.
    ///
    /// # Panics
    /// If the stream does not open.
    pub async fn open(edge: &Edge, room: &str, visitor: Visitor) -> Self {
        let request = Request {
            url: format!("{}/v1/rooms/{room}/stream", edge.url),
            last_event_id: (!visitor.last_id.is_empty()).then(|| visitor.last_id.clone()),
            token: Some(visitor.token.clone()),
        };
        let mut source = Source::open(&request).await.expect("the stream opens");
        let visitor = Arc::new(Mutex::new(visitor));
        let ours = visitor.clone();
        let task = tokio::spawn(async move {
            while let Ok(Some(event)) = source.next().await {
                let mut visitor = ours.lock().expect("no test panics while it holds this");
                visitor.hear(&event).expect("an event as it is documented");
            }
        });
        Self { visitor, task }
    }

    /// Returns what the visitor has heard so far.
    ///
    /// # Panics
    /// If the task that follows the stream panicked.
    pub fn heard(&self) -> Visitor {
        self.visitor.lock().expect("hearing does not panic").clone()
    }

    /// Whether the stream has ended.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Cuts the connection. Returns what the visitor had heard.
    pub fn cut(self) -> Visitor {
        self.task.abort();
        self.heard()
    }
}

/// Makes a token that may make rooms.
///
/// # Panics
/// Never: HS256 signs with any secret.
pub fn admin() -> String {
    sign(SECRET, "admin", "rooms:admin", Duration::from_secs(3600)).expect("it signs")
}

/// Makes a new idempotency key.
pub fn key() -> String {
    uuid::Uuid::from_u128(rand::random()).to_string()
}

/// All values of a topic, from the beginning to its end as it is now, partition by partition.
///
/// # Panics
/// If Kafka does not answer.
pub fn read_topic(brokers: &str, topic: &str) -> Vec<Vec<u8>> {
    let records = tutti_kafka::tools::read_topic(brokers, topic, Duration::from_secs(10));
    records.expect("Kafka answers").into_iter().map(|record| record.value.unwrap_or_default()).collect()
}
