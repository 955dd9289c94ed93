//! Waiting rooms: their service, edges that know it, and what visitors and administrators say.

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

/// Of these tests, and of nothing else.
pub const SECRET: &str = "a-secret-of-these-tests-and-of-nothing-else";

/// Replicas of the service, and what they are configured with.
pub struct Rooms {
    /// Kafka, Redis and where files lie.
    pub testbed: Testbed,
    /// The replicas.
    pub queues: Vec<Service>,
    /// The topic of the relay.
    pub topic: String,
    urls: Vec<String>,
    client: Client,
}

/// A ticket, as joining gave it.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Its number.
    pub ticket: u64,
    /// Its token.
    pub token: String,
    /// The whole answer.
    pub body: Value,
}

impl Rooms {
    /// So many replicas, ready, with settings of their own.
    ///
    /// # Panics
    /// If one does not become ready.
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
        // An edge closes a connection after 15 s without a request, perhaps just as one is on its way.
        let idle = Duration::from_secs(2);
        let client = Client::builder().timeout(Duration::from_secs(20)).pool_idle_timeout(idle).build();
        let client = client.expect("a client");
        Self { testbed, queues, topic, urls, client }
    }

    /// Where each replica serves gRPC, as a URL.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// An edge that knows the replicas, with settings of its own.
    ///
    /// # Panics
    /// If it does not become ready.
    pub async fn edge(&self, settings: &[(&str, &str)]) -> Edge {
        let urls = self.urls.join(",");
        let mut all = vec![("queue.urls", urls.as_str()), ("auth.hs256_secret", SECRET)];
        all.extend(settings);
        let edge = self.testbed.edge(&all);
        edge.service.wait_ready().await;
        edge
    }

    /// Any request: the status and the body, `Null` if it is no JSON.
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

    /// A request that may be repeated as often as the edge says that it cannot be answered yet.
    ///
    /// # Panics
    /// If it is refused, or not answered for 90 s.
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

    /// Makes a room, or changes its settings; what it is then.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn put(&self, edge: &Edge, room: &str, settings: &str) -> Value {
        self.insist(Method::PUT, edge, &format!("/v1/rooms/{room}"), &admin(), settings).await
    }

    /// A room as administrators see it.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn room(&self, edge: &Edge, room: &str) -> Value {
        self.insist(Method::GET, edge, &format!("/v1/rooms/{room}"), &admin(), "").await
    }

    /// Asks to join: the status, the `Retry-After`, and the body.
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

    /// Joins with a key of its own.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn join(&self, edge: &Edge, room: &str) -> Joined {
        let (status, _, body) = self.ask_to_join(edge, room, &key(), None).await.expect("the edge answers");
        assert_eq!(status, 201, "{body}");
        Joined::of(body)
    }

    /// Makes a room for one, which two join: the second, who waits, and the stream of that ticket, on which its
    /// place has come.
    ///
    /// # Panics
    /// If one is refused, or the place does not come.
    pub async fn one_waits(&self, edge: &Edge, room: &str) -> (Joined, Stream) {
        self.put(edge, room, r#"{"maxActive":1,"admitPerSecond":50}"#).await;
        self.join(edge, room).await;
        let waits = self.join(edge, room).await;
        let stream = Stream::open(edge, room, waits.visitor()).await;
        eventually("its place", async || position(&stream.heard()) == Some(1)).await;
        (waits, stream)
    }

    /// Joins with a key of its own, tried again as long as the edge says so.
    ///
    /// # Panics
    /// If it is refused for good, or for longer than 90 s.
    pub async fn join_until_accepted(&self, edge: &Edge, room: &str) -> Joined {
        let key = key();
        until_there("a visitor gets in", async || match self.ask_to_join(edge, room, &key, None).await {
            Ok((status, _, body)) if status.is_success() => Some(Joined::of(body)),
            Ok((status, _, body)) if status != 503 => panic!("{status}: {body}"),
            _ => None,
        })
        .await
    }

    /// A request about a ticket with its own token, as `""`, `/claim`.
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

    /// A ticket as it stands.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn ticket(&self, edge: &Edge, room: &str, joined: &Joined) -> Value {
        let path = format!("/v1/rooms/{room}/tickets/{}", joined.ticket);
        self.insist(Method::GET, edge, &path, &joined.token, "").await
    }

    /// Waits until Kafka has every change of a room, but perhaps for a pulse.
    ///
    /// # Panics
    /// If it does not get them.
    pub async fn until_relayed(&self, edge: &Edge, room: &str) {
        eventually("Kafka has every change", || async {
            self.room(edge, room).await["figures"]["unrelayed"].as_u64().is_some_and(|n| n <= 1)
        })
        .await;
    }

    /// The changes of a room that Kafka has, each once, in the order in which it has them: as a
    /// consumer sees them who drops what came before by epoch and version.
    ///
    /// # Panics
    /// If they are not in order.
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
    /// What a join answered.
    ///
    /// # Panics
    /// If it is none.
    pub fn of(body: Value) -> Self {
        let ticket = body["ticket"].as_u64().expect("a ticket");
        let token = body["token"].as_str().expect("a token").to_owned();
        Self { ticket, token, body }
    }

    /// Who has the ticket, and has heard nothing yet.
    pub fn visitor(&self) -> Visitor {
        Visitor { ticket: self.ticket, token: self.token.clone(), ..Visitor::default() }
    }
}

/// A stream of a visitor, heard in the background.
pub struct Stream {
    visitor: Arc<Mutex<Visitor>>,
    task: JoinHandle<()>,
}

/// Where a visitor was told to be, last of all.
pub fn position(visitor: &Visitor) -> Option<u64> {
    visitor.updates.last().and_then(|(position, _)| *position)
}

impl Stream {
    /// Opens it, from where the visitor was.
    ///
    /// # Panics
    /// If it does not open.
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

    /// What was heard so far.
    ///
    /// # Panics
    /// If hearing failed.
    pub fn heard(&self) -> Visitor {
        self.visitor.lock().expect("hearing does not panic").clone()
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Breaks it off.
    pub fn cut(self) -> Visitor {
        self.task.abort();
        self.heard()
    }
}

/// A token that may make rooms.
///
/// # Panics
/// Never: the secret signs anything.
pub fn admin() -> String {
    sign(SECRET, "admin", "rooms:admin", Duration::from_secs(3600)).expect("it signs")
}

/// A new idempotency key.
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
