//! Notifications: their service, the edges that use it, senders, and the devices of users.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tutti::token::sign;
use tutti_feed::{MailboxLimits, MailboxMetrics, Mailboxes, Since};
use tutti_load::sse::{Event, Request, Source};
use tutti_model::names;

use crate::kafka::Kafka;
use crate::rooms::SECRET;
use crate::service::Service;
use crate::testbed::{Edge, Testbed};
use crate::{free_port, unique, until_there};

/// The number of buckets. More than one, so that tests cross from one to another.
const BUCKETS: u32 = 4;

/// Replicas of the service, and the settings that go with them.
pub struct Inboxes {
    /// Kafka, Redis and the folder for files.
    pub testbed: Testbed,
    /// The replicas of the service.
    pub replicas: Vec<Service>,
    /// The topic of notifications.
    pub topic: String,
    urls: Vec<String>,
    client: Client,
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The `Retry-After` header.
    pub retry_after: Option<String>,
    /// The body. `Null` if it is not JSON.
    pub body: Value,
}

impl Inboxes {
    /// Starts this many replicas and a topic of three partitions, and waits until all are ready.
    ///
    /// # Panics
    /// If a replica does not become ready.
    pub async fn start(kafka: &Kafka, replicas: usize) -> Self {
        Self::with(kafka, Testbed::on(kafka, 1).await, replicas).await
    }

    /// Starts replicas as [`Inboxes::start`] does, on a testbed that has settings of its own.
    ///
    /// # Panics
    /// If a replica does not become ready.
    pub async fn with(kafka: &Kafka, testbed: Testbed, replicas: usize) -> Self {
        let testbed = testbed.with("inbox.buckets", &BUCKETS.to_string());
        let topic = unique("notifications");
        kafka.create_topic(&topic, 3).await.expect("the topic is made");
        let (mut services, mut urls) = (Vec::new(), Vec::new());
        for _ in 0..replicas {
            let port = free_port();
            let settings = [
                ("grpc.listen", format!("127.0.0.1:{port}")),
                ("kafka.brokers", testbed.brokers().to_owned()),
                ("notifications.topic", topic.clone()),
            ];
            services.push(testbed.service("tutti-notify", &settings));
            urls.push(format!("http://127.0.0.1:{port}"));
        }
        for service in &services {
            service.wait_ready().await;
        }
        // An edge closes a connection after 15 s without a request, perhaps just when the next request is sent.
        let idle = Duration::from_secs(2);
        let client = Client::builder().timeout(Duration::from_secs(20)).pool_idle_timeout(idle).build();
        Self { testbed, replicas: services, topic, urls, client: client.expect("a client") }
    }

    /// Returns the gRPC URL of each replica.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Starts an ingest that carries notifications and nothing else.
    pub fn ingest(&self) -> Service {
        let settings = [
            ("kafka.brokers", self.testbed.brokers().to_owned()),
            ("ingest.routes", "notifications".to_owned()),
            ("routes.notifications.topic", self.topic.clone()),
            ("routes.notifications.group", format!("{}-group", self.topic)),
        ];
        self.testbed.service("tutti-ingest", &settings)
    }

    /// Starts an edge that uses the replicas, with settings of its own. It may not be ready yet.
    pub fn new_edge(&self, settings: &[(&str, &str)]) -> Edge {
        let urls = self.urls.join(",");
        let mut all = vec![("notify.urls", urls.as_str()), ("auth.hs256_secret", SECRET)];
        all.extend(settings);
        self.testbed.edge(&all)
    }

    /// Starts an edge as [`Inboxes::new_edge`] does, and waits until it is ready.
    ///
    /// # Panics
    /// If the edge does not become ready.
    pub async fn edge(&self, settings: &[(&str, &str)]) -> Edge {
        let edge = self.new_edge(settings);
        edge.service.wait_ready().await;
        edge
    }

    /// Makes a request with a token.
    ///
    /// # Panics
    /// If the edge does not answer.
    pub async fn call(&self, method: Method, edge: &Edge, path: &str, token: &str, body: &str) -> Answer {
        let request = self.client.request(method, format!("{}{path}", edge.url));
        let request = request.bearer_auth(token).body(body.to_owned());
        answer(request).await.expect("the edge answers")
    }

    /// Sends a notification.
    ///
    /// # Errors
    /// If the edge does not answer.
    pub async fn send(&self, edge: &str, key: &str, notification: &Value) -> reqwest::Result<Answer> {
        let request = self.client.post(format!("{edge}/v1/notifications")).bearer_auth(sender());
        answer(request.header("idempotency-key", key).body(notification.to_string())).await
    }

    /// Sends a notification at one edge after the other until it is accepted. Returns its id.
    ///
    /// # Panics
    /// If it is refused for good, or not accepted within 90 s.
    pub async fn send_until_accepted(&self, edges: &[String], key: &str, notification: &Value) -> String {
        let mut edges = edges.iter().cycle();
        let send = || {
            let edge = edges.next().expect("there are edges");
            async move {
                match self.send(edge, key, notification).await {
                    Ok(Answer { status, body, .. }) if status == 202 => {
                        Some(body["id"].as_str().expect("an id").to_owned())
                    }
                    Ok(Answer { status, body, .. }) if status != 503 => panic!("{status}: {body}"),
                    _ => None,
                }
            }
        };
        until_there(&format!("{key} is accepted"), send).await
    }

    /// Returns the list of a user's inbox.
    ///
    /// # Panics
    /// If the edge refuses.
    pub async fn list(&self, edge: &Edge, user: &str, query: &str) -> Value {
        let path = format!("/v1/inbox{query}");
        until_there(&path, async || {
            let answer = self.call(Method::GET, edge, &path, &token(user), "").await;
            assert!(matches!(answer.status.as_u16(), 200 | 503), "{}: {}", answer.status, answer.body);
            (answer.status == 200).then_some(answer.body)
        })
        .await
    }

    /// Returns the ids in a user's inbox, newest first.
    ///
    /// # Panics
    /// If the edge refuses.
    pub async fn ids(&self, edge: &Edge, user: &str) -> Vec<String> {
        let list = self.list(edge, user, "?limit=1000").await;
        let all = list["notifications"].as_array().expect("a list").iter();
        all.map(|one| one["id"].as_str().expect("an id").to_owned()).collect()
    }
}

impl Inboxes {
    /// Returns the mailboxes in Redis.
    pub fn mailboxes(&self) -> Mailboxes {
        let keep = MailboxLimits { items: 200, bytes: 256 << 10, age: Duration::from_secs(30 * 86_400) };
        let client = self.testbed.redis.client().clone();
        Mailboxes::new(client, names::INBOX, BUCKETS, keep, MailboxMetrics::default())
    }

    /// Returns the ids that a mailbox holds in Redis, oldest first.
    ///
    /// # Panics
    /// If Redis does not answer.
    pub async fn kept(&self, address: &str) -> Vec<String> {
        let mailbox = self.mailboxes().read(address, Since::All).await.expect("Redis answers");
        mailbox.items.into_iter().map(|item| item.id).collect()
    }
}

async fn answer(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
    let answer = request.send().await?;
    let retry_after = answer.headers().get("retry-after").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let status = answer.status();
    Ok(Answer { status, retry_after, body: answer.json().await.unwrap_or_default() })
}

/// Makes a token of a user, for the user's inbox and all topics.
///
/// # Panics
/// Never: HS256 signs with any secret.
pub fn token(user: &str) -> String {
    sign(SECRET, user, "inbox:topics", Duration::from_secs(3600)).expect("it can be signed")
}

/// Makes a token of a back end that sends notifications and asks who is online.
///
/// # Panics
/// Never: HS256 signs with any secret.
pub fn sender() -> String {
    let scope = "notifications:send presence:read";
    sign(SECRET, "shop", scope, Duration::from_secs(3600)).expect("it can be signed")
}

/// What a device has heard.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The ids of notifications, in the order in which they came. A reset clears them.
    pub ids: Vec<String>,
    /// The data of each notification.
    pub data: BTreeMap<String, Value>,
    /// The ids of notifications that came again without a reset between.
    pub twice: Vec<String>,
    /// The ids of notifications that were reported as read.
    pub read: BTreeSet<String>,
    /// The ids of notifications that were reported as deleted.
    pub deleted: BTreeSet<String>,
    /// The last count of unread notifications.
    pub unread: Option<u64>,
    /// The data of all `connected` events.
    pub connected: Vec<Value>,
    /// The reasons of all `reset` events.
    pub resets: Vec<String>,
    /// The states of all `status` events.
    pub statuses: Vec<String>,
    /// The reasons of all `end` events.
    pub ends: Vec<String>,
    /// Why streams could not be opened.
    pub refusals: Vec<String>,
    /// The last event id, with which the device resumes.
    pub last_id: String,
    /// The longest time that a notification took from the time in its data (`at`, ms since 1970).
    pub slowest_ms: i64,
}

impl Seen {
    /// Takes an event in.
    ///
    /// # Panics
    /// If the event is not one of an inbox.
    pub fn hear(&mut self, event: &Event) {
        let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
        let reason = || data["reason"].as_str().unwrap_or_default().to_owned();
        let ids = || data["ids"].as_array().cloned().unwrap_or_default();
        if let Some(unread) = data["unread"].as_u64().filter(|_| data["topic"].is_null()) {
            self.unread = Some(unread);
        }
        match event.event.as_str() {
            "connected" => self.connected.push(data),
            "notification" => {
                let id = data["id"].as_str().unwrap_or_default().to_owned();
                if self.ids.contains(&id) {
                    self.twice.push(id.clone());
                }
                if data["read"] == true {
                    self.read.insert(id.clone());
                }
                if let Some(at) = data["data"]["at"].as_i64() {
                    self.slowest_ms = self.slowest_ms.max(tutti_load::now_ms() - at);
                }
                self.ids.push(id.clone());
                self.data.insert(id, data);
            }
            "read" => self.read.extend(ids().iter().filter_map(|id| id.as_str().map(str::to_owned))),
            "deleted" => self.deleted.extend(ids().iter().filter_map(|id| id.as_str().map(str::to_owned))),
            "reset" => {
                self.resets.push(reason());
                (self.ids, self.data, self.read) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
            }
            "status" => self.statuses.push(data["state"].as_str().unwrap_or_default().to_owned()),
            "end" => self.ends.push(reason()),
            other => panic!("an event that no inbox has: {other}"),
        }
    }
}

/// A device. It comes back as an EventSource does, to one edge after the other, until it is dropped.
pub struct Device {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Device {
    /// Starts a device of a user at these edges, with a query such as `?topics=news`. It resumes from what it has
    /// seen.
    pub fn start(client: &Client, edges: &[String], user: &str, query: &str, seen: Seen) -> Self {
        let seen = Arc::new(Mutex::new(seen));
        let (ours, client, token) = (seen.clone(), client.clone(), token(user));
        let urls: Vec<String> = edges.iter().map(|edge| format!("{edge}/v1/inbox/stream{query}")).collect();
        let task = tokio::spawn(async move {
            for url in urls.iter().cycle() {
                let last_event_id =
                    Some(ours.lock().expect("no panic").last_id.clone()).filter(|id| !id.is_empty());
                let request = Request { url: url.clone(), last_event_id, token: Some(token.clone()) };
                match Source::open_by(&client, &request).await {
                    Ok(mut source) => {
                        while let Ok(Some(event)) = source.next().await {
                            let mut seen = ours.lock().expect("no panic");
                            seen.hear(&event);
                            source.last_event_id().clone_into(&mut seen.last_id);
                        }
                        let mut seen = ours.lock().expect("no panic");
                        source.last_event_id().clone_into(&mut seen.last_id);
                        if !seen.ends.is_empty() {
                            return;
                        }
                    }
                    Err(error) => ours.lock().expect("no panic").refusals.push(format!("{error:#}")),
                }
                sleep(Duration::from_millis(50)).await;
            }
        });
        Self { seen, task }
    }

    /// Starts a device that has seen nothing, with an HTTP client of its own.
    pub fn new(edges: &[String], user: &str, query: &str) -> Self {
        Self::start(&Client::new(), edges, user, query, Seen::default())
    }

    /// Returns a copy of what the device has seen so far.
    ///
    /// # Panics
    /// If the task of the device panicked.
    pub fn seen(&self) -> Seen {
        self.seen.lock().expect("no panic").clone()
    }

    /// Looks at what the device has seen, without a copy.
    ///
    /// # Panics
    /// If the task of the device panicked.
    pub fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().expect("no panic"))
    }

    /// Closes the stream for good. Returns what the device has seen.
    pub fn leave(self) -> Seen {
        self.task.abort();
        self.seen()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.task.abort();
    }
}
