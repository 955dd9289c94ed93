//! Notifications: their service, edges that know it, senders, and users' devices.

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

/// More than one, for there to be more than one.
const BUCKETS: u32 = 4;

/// Replicas of the service, and what they are configured with.
pub struct Inboxes {
    /// Kafka, Redis and where files lie.
    pub testbed: Testbed,
    /// The replicas.
    pub replicas: Vec<Service>,
    /// The topic of notifications.
    pub topic: String,
    urls: Vec<String>,
    client: Client,
}

/// An answer to a sender.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// When to try again.
    pub retry_after: Option<String>,
    /// Its body, `Null` if it is no JSON.
    pub body: Value,
}

impl Inboxes {
    /// So many replicas, ready, and a topic of three partitions.
    ///
    /// # Panics
    /// If one does not become ready.
    pub async fn start(kafka: &Kafka, replicas: usize) -> Self {
        Self::with(kafka, Testbed::on(kafka, 1).await, replicas).await
    }

    /// The same on a testbed with settings of its own.
    ///
    /// # Panics
    /// If one does not become ready.
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
        // An edge closes a connection after 15 s without a request, perhaps just as one is on its way.
        let idle = Duration::from_secs(2);
        let client = Client::builder().timeout(Duration::from_secs(20)).pool_idle_timeout(idle).build();
        Self { testbed, replicas: services, topic, urls, client: client.expect("a client") }
    }

    /// Where each replica serves gRPC, as a URL.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// An ingest that carries notifications and nothing else.
    pub fn ingest(&self) -> Service {
        let settings = [
            ("kafka.brokers", self.testbed.brokers().to_owned()),
            ("ingest.routes", "notifications".to_owned()),
            ("routes.notifications.topic", self.topic.clone()),
            ("routes.notifications.group", format!("{}-group", self.topic)),
        ];
        self.testbed.service("tutti-ingest", &settings)
    }

    /// An edge that knows the replicas, with settings of its own; it may not be ready yet.
    pub fn new_edge(&self, settings: &[(&str, &str)]) -> Edge {
        let urls = self.urls.join(",");
        let mut all = vec![("notify.urls", urls.as_str()), ("auth.hs256_secret", SECRET)];
        all.extend(settings);
        self.testbed.edge(&all)
    }

    /// The same, ready.
    ///
    /// # Panics
    /// If it does not become ready.
    pub async fn edge(&self, settings: &[(&str, &str)]) -> Edge {
        let edge = self.new_edge(settings);
        edge.service.wait_ready().await;
        edge
    }

    /// Any request with a token.
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

    /// Sends until it is accepted, at one edge after the other; its id.
    ///
    /// # Panics
    /// If it is refused for good, or for longer than 90 s.
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

    /// A user's inbox as it is listed.
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

    /// Ids of a user's inbox, newest first.
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
    /// The mailboxes in Redis.
    pub fn mailboxes(&self) -> Mailboxes {
        let keep = MailboxLimits { items: 200, bytes: 256 << 10, age: Duration::from_secs(30 * 86_400) };
        let client = self.testbed.redis.client().clone();
        Mailboxes::new(client, names::INBOX, BUCKETS, keep, MailboxMetrics::default())
    }

    /// Ids of what a mailbox holds in Redis, oldest first.
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

/// A token of a user, for her inbox and all topics.
///
/// # Panics
/// Never: it can be signed.
pub fn token(user: &str) -> String {
    sign(SECRET, user, "inbox:topics", Duration::from_secs(3600)).expect("it can be signed")
}

/// A token of a back end.
///
/// # Panics
/// Never: it can be signed.
pub fn sender() -> String {
    let scope = "notifications:send presence:read";
    sign(SECRET, "shop", scope, Duration::from_secs(3600)).expect("it can be signed")
}

/// What a device has been told.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Ids of notifications in the order of their arrival; a reset begins anew.
    pub ids: Vec<String>,
    /// The data of each.
    pub data: BTreeMap<String, Value>,
    /// Those that were told twice, without a reset between.
    pub twice: Vec<String>,
    /// Those that are read, as far as it was told.
    pub read: BTreeSet<String>,
    /// Those that it was told are deleted.
    pub deleted: BTreeSet<String>,
    /// The last count of unread that it was told.
    pub unread: Option<u64>,
    /// `connected`, each time.
    pub connected: Vec<Value>,
    /// Reasons of resets.
    pub resets: Vec<String>,
    /// States, as live.
    pub statuses: Vec<String>,
    /// Reasons of ends.
    pub ends: Vec<String>,
    /// Why a stream could not be opened.
    pub refusals: Vec<String>,
    /// Where it would go on.
    pub last_id: String,
    /// How long each notification took from the time in its data (`at`, ms since 1970).
    pub slowest_ms: i64,
}

impl Seen {
    /// Takes an event in.
    ///
    /// # Panics
    /// If no inbox has such an event.
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

/// A device: it comes back by the rules, to one edge after the other, until it is dropped.
pub struct Device {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Device {
    /// Of a user, at these edges, with a query as `?topics=news`; goes on from what it has seen.
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

    /// The same, new, with a client of its own.
    pub fn new(edges: &[String], user: &str, query: &str) -> Self {
        Self::start(&Client::new(), edges, user, query, Seen::default())
    }

    /// What it has seen so far.
    ///
    /// # Panics
    /// If the device's task panicked.
    pub fn seen(&self) -> Seen {
        self.seen.lock().expect("no panic").clone()
    }

    /// Looks at what it has seen, without a copy.
    ///
    /// # Panics
    /// If the device's task panicked.
    pub fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().expect("no panic"))
    }

    /// Goes away; what it has seen.
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
