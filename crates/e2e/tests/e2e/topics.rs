//! Any Kafka topic as a resumable event stream.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tutti::token::sign;
use tutti_e2e::kafka::{self, Kafka};
use tutti_e2e::rooms::{Rooms, SECRET};
use tutti_e2e::service::Service;
use tutti_e2e::testbed::{Edge, Testbed};
use tutti_e2e::{eventually, unique};
use tutti_load::publisher::Publisher;
use tutti_load::sse::{Event, Request, Source};

/// What one listener has heard.
#[derive(Clone, Debug, Default)]
struct Heard {
    events: Vec<(String, String)>,
    statuses: Vec<String>,
    resets: Vec<String>,
    last_id: String,
}

impl Heard {
    fn hear(&mut self, event: &Event) {
        match event.event.as_str() {
            "status" => self.statuses.push(event.data.clone()),
            "reset" => self.resets.push(event.data.clone()),
            name => self.events.push((name.to_owned(), event.data.clone())),
        }
    }

    fn values(&self) -> Vec<String> {
        self.events.iter().map(|(_, data)| data.clone()).collect()
    }
}

struct Listener {
    heard: Arc<Mutex<Heard>>,
    task: tokio::task::JoinHandle<()>,
}

impl Listener {
    async fn open(url: &str, heard: Heard) -> Self {
        let last_event_id = (!heard.last_id.is_empty()).then(|| heard.last_id.clone());
        let mut source =
            Source::open(&Request { url: url.to_owned(), last_event_id, token: None }).await.unwrap();
        let heard = Arc::new(Mutex::new(heard));
        let ours = heard.clone();
        let task = tokio::spawn(async move {
            while let Ok(Some(event)) = source.next().await {
                let mut heard = ours.lock().unwrap();
                heard.hear(&event);
                source.last_event_id().clone_into(&mut heard.last_id);
            }
        });
        Self { heard, task }
    }

    fn heard(&self) -> Heard {
        self.heard.lock().unwrap().clone()
    }

    fn cut(self) -> Heard {
        self.task.abort();
        self.heard()
    }
}

/// A topic of one test, and the services that carry and serve it.
struct House {
    testbed: Testbed,
    topic: String,
}

impl House {
    async fn new(kafka: &Kafka, partitions: i32) -> Self {
        let topic = unique("events");
        kafka.create_topic(&topic, partitions).await.unwrap();
        Self { testbed: Testbed::on(kafka, 1).await, topic }
    }

    fn ingest(&self) -> Service {
        let settings = [
            ("kafka.brokers", self.testbed.brokers().to_owned()),
            ("ingest.routes", "e".to_owned()),
            ("routes.e.kind", "events".to_owned()),
            ("routes.e.topic", self.topic.clone()),
            ("routes.e.group", format!("{}-group", self.topic)),
        ];
        self.testbed.service("tutti-ingest", &settings)
    }

    async fn edge(&self) -> Edge {
        let edge = self.testbed.edge(&[
            ("topics.names", &self.topic),
            ("topics.public", &self.topic),
            ("streams.heartbeat_seconds", "1"),
        ]);
        edge.service.wait_ready().await;
        edge
    }

    fn url(&self, edge: &Edge, query: &str) -> String {
        format!("{}/v1/topics/{}/stream{query}", edge.url, self.topic)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_records_arrive_in_order_once_through_a_rebalance_and_a_change_of_edge() {
    let house = House::new(kafka::shared(), 1).await;
    let mut first = house.ingest();
    first.wait_ready().await;
    let (mut a, b) = (house.edge().await, house.edge().await);
    let stays = Listener::open(&house.url(&b, "?since=oldest"), Heard::default()).await;
    let moves = Listener::open(&house.url(&a, "?since=oldest"), Heard::default()).await;
    let publisher = Publisher::new(house.testbed.brokers(), &house.topic).unwrap();
    let expected: Vec<String> = (0..20_000).map(|n| format!("value {n}")).collect();
    let mut sent = expected.iter();
    let mut send = async |count: usize| {
        for value in sent.by_ref().take(count) {
            publisher.send("k", Some(value.as_bytes())).await.unwrap();
        }
        publisher.flush(Duration::from_secs(30)).await.unwrap();
    };
    send(6000).await;
    eventually("some have come", || async { moves.heard().events.len() > 2000 }).await;
    // In the middle of the input, another ingest takes over, and the edge of the listener dies.
    let second = house.ingest();
    first.kill();
    a.service.kill();
    let moved = moves.cut();
    send(8000).await;
    let moves = Listener::open(&house.url(&b, ""), moved).await;
    second.wait_ready().await;
    a.service.run();
    a.service.wait_ready().await;
    eventually("more have come", || async { moves.heard().events.len() > 10_000 }).await;
    let moves = Listener::open(&house.url(&a, ""), moves.cut()).await;
    send(6000).await;
    for listener in [&stays, &moves] {
        eventually("all have come", || async { listener.heard().events.len() >= 20_000 }).await;
        let heard = listener.heard();
        let at = heard.values().iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!((at, heard.events.len(), heard.resets.len()), (None, 20_000, 0), "{at:?}");
    }
    let late = Listener::open(&house.url(&a, "?since=oldest"), Heard::default()).await;
    eventually("one that comes late hears it all", || async { late.heard().events.len() >= 20_000 }).await;
    assert_eq!(late.heard().values(), expected);
}

#[tokio::test]
async fn any_value_arrives_as_it_was_sent_and_one_key_can_be_had_alone() {
    let house = House::new(kafka::shared(), 1).await;
    let ingest = house.ingest();
    ingest.wait_ready().await;
    let (a, b) = (house.edge().await, house.edge().await);
    let all = Listener::open(&house.url(&a, ""), Heard::default()).await;
    let one = Listener::open(&house.url(&b, "?key=k%261"), Heard::default()).await;
    for listener in [&all, &one] {
        eventually("it has an id", || async { !listener.heard().last_id.is_empty() }).await;
    }
    let publisher = Publisher::new(house.testbed.brokers(), &house.topic).unwrap();
    let values: [(&str, Option<&[u8]>); 6] = [
        ("k&1", Some("ein|Text\nmit\n\nZeilen \u{1f600}".as_bytes())),
        ("k2", Some(b"carriage\rreturn")),
        ("k2", Some(&[0xff, 0x00])),
        ("k&1", Some(b"")),
        ("k2", None),
        ("k&1", Some(br#"{"a":1}"#)),
    ];
    for (key, value) in values {
        publisher.send(key, value).await.unwrap();
    }
    let expected = [
        ("message", "ein|Text\nmit\n\nZeilen \u{1f600}"),
        ("message.base64", "Y2FycmlhZ2UNcmV0dXJu"),
        ("message.base64", "/wA="),
        ("message.empty", "\"\""),
        ("message.null", "null"),
        ("message", r#"{"a":1}"#),
    ]
    .map(|(name, data)| (name.to_owned(), data.to_owned()));
    eventually("all come", || async { all.heard().events == expected }).await;
    let of_one = [0, 3, 5].map(|i: usize| expected[i].clone());
    eventually("those of the key come", || async { one.heard().events == of_one }).await;

    let heard = one.cut();
    publisher.send("k2", Some(b"not this")).await.unwrap();
    publisher.send("k&1", Some(b"this")).await.unwrap();
    let back = Listener::open(&house.url(&a, "?key=k%261"), heard).await;
    eventually("it goes on", || async { back.heard().values().last().is_some_and(|v| v == "this") }).await;
    assert_eq!((back.heard().events.len(), back.heard().resets.len()), (4, 0));

    let foreign = Heard { last_id: "nonsense".into(), ..Heard::default() };
    let lost = Listener::open(&house.url(&a, ""), foreign).await;
    eventually("who comes with nonsense gets a reset and all", || async { lost.heard().events.len() == 8 })
        .await;
    assert_eq!(lost.heard().resets, [r#"{"reason":"unknown_id"}"#]);
}

#[tokio::test]
async fn who_may_read_which_topic_is_in_the_token_or_public() {
    let testbed = Testbed::new(1).await;
    let edge = testbed.edge(&[
        ("topics.names", "open,secret,other"),
        ("topics.public", "open"),
        ("auth.hs256_secret", SECRET),
    ]);
    edge.service.wait_ready().await;
    let token = |scope: &str| sign(SECRET, "7", scope, Duration::from_secs(60)).unwrap();
    let ask = async |path: &str, token: Option<String>| {
        let mut request = reqwest::Client::new().get(format!("{}{path}", edge.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.unwrap()
    };
    let status = async |topic: &str, token: Option<String>| {
        ask(&format!("/v1/topics/{topic}/stream"), token).await.status().as_u16()
    };
    assert_eq!(status("open", None).await, 200);
    assert_eq!(status("secret", None).await, 401);
    assert_eq!(status("secret", Some(token("map:read"))).await, 403);
    assert_eq!(status("secret", Some(token("topics:read:other"))).await, 403);
    assert_eq!(status("secret", Some(token("topics:read:secret"))).await, 200);
    assert_eq!(status("other", Some(token("topics:read"))).await, 200);
    assert_eq!(status("none", Some(token("topics:read"))).await, 404);
    assert_eq!(status("none", None).await, 401, "who may not read it does not hear whether it is there");
    let list = async |token| ask("/v1/topics", token).await.json::<serde_json::Value>().await.unwrap();
    assert_eq!(list(None).await, json!({"topics": ["open"]}));
    assert_eq!(list(Some(token("topics:read:secret"))).await, json!({"topics": ["open", "secret"]}));
}

#[tokio::test]
async fn what_happens_in_rooms_and_what_others_write_there_reaches_browsers_over_the_topic() {
    let rooms = Rooms::start(Testbed::new(1).await, 1, &[]).await;
    let ingest = rooms.testbed.service(
        "tutti-ingest",
        &[
            ("kafka.brokers", rooms.testbed.brokers().to_owned()),
            ("ingest.routes", "queueing-system".to_owned()),
            ("routes.queueing-system.topic", rooms.topic.clone()),
            ("routes.queueing-system.group", format!("{}-group", rooms.topic)),
        ],
    );
    let edge = rooms.edge(&[("topics.names", &rooms.topic), ("topics.public", &rooms.topic)]).await;
    rooms.put(&edge, "sale", r#"{"maxActive":1,"admitPerSecond":50}"#).await;
    rooms.join(&edge, "sale").await;
    let publisher = Publisher::new(rooms.testbed.brokers(), &rooms.topic).unwrap();
    eventually("the topic is there", || async { rooms.relayed("sale").len() == 3 }).await;
    publisher.send("sale", Some(br#"{"type":"from another system"}"#)).await.unwrap();
    ingest.wait_ready().await;
    let url = format!("{}/v1/topics/{}/stream?since=oldest", edge.url, rooms.topic);
    let listener = Listener::open(&url, Heard::default()).await;
    eventually("all of it comes", || async { listener.heard().events.len() == 4 }).await;
    let kinds: Vec<String> = listener
        .heard()
        .values()
        .iter()
        .map(|value| {
            serde_json::from_str::<serde_json::Value>(value).unwrap()["type"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(kinds, ["settings", "joined", "admitted", "from another system"]);
}
