//! Several streams in one connection.

use reqwest::Method;
use serde_json::Value;
use tutti_e2e::fixes::fix;
use tutti_e2e::inboxes::token;
use tutti_e2e::rooms::{Rooms, admin};
use tutti_e2e::service::Service;
use tutti_e2e::testbed::{Edge, Testbed};
use tutti_e2e::{kafka, unique};
use tutti_load::now_ms;
use tutti_load::publisher::Publisher;
use tutti_load::sse::{Event, Request, Source};

/// A combined stream, and all events that came on it.
struct Combined {
    source: Source,
    events: Vec<Event>,
}

impl Combined {
    async fn open(edge: &Edge, query: &str, last: Option<String>) -> Self {
        let url = format!("{}/v1/stream?{query}&access_token={}", edge.url, token("7"));
        let source = Source::open(&Request { url, last_event_id: last, token: None }).await.unwrap();
        Self { source, events: Vec::new() }
    }

    /// Reads until a condition holds for the events that came.
    async fn until(&mut self, told: impl Fn(&[Event]) -> bool) {
        let reading = async {
            while !told(&self.events) {
                let event = self.source.next().await.unwrap().expect("the stream goes on");
                self.events.push(event);
            }
        };
        let read = tokio::time::timeout(std::time::Duration::from_secs(60), reading).await;
        assert!(read.is_ok(), "waited in vain: {:?}", self.events);
    }
}

fn has(events: &[Event], name: &str, text: &str) -> bool {
    events.iter().any(|event| event.event == name && event.data.contains(text))
}

/// Starts an ingest of positions and of notifications. Returns it and the topic of notifications.
async fn ingest_of_map_and_inboxes(rooms: &Rooms) -> (Service, String) {
    let topic = unique("notifications");
    kafka::shared().create_topic(&topic, 1).await.unwrap();
    let ingest = rooms.testbed.service(
        "tutti-ingest",
        &[
            ("kafka.brokers", rooms.testbed.brokers().to_owned()),
            ("ingest.routes", "locations,notifications".to_owned()),
            ("routes.locations.topic", rooms.testbed.topic.clone()),
            ("routes.locations.group", format!("{topic}-locations")),
            ("routes.notifications.topic", topic.clone()),
            ("routes.notifications.group", format!("{topic}-group")),
        ],
    );
    (ingest, topic)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_shows_inbox_room_and_map_and_one_id_resumes_all_anywhere() {
    let rooms = Rooms::start(Testbed::new(1).await, 1, &[]).await;
    let (ingest, topic) = ingest_of_map_and_inboxes(&rooms).await;
    let (a, b) = (rooms.edge(&[]).await, rooms.edge(&[]).await);
    ingest.wait_ready().await;
    rooms.put(&a, "sale", r#"{"maxActive":1,"claimSeconds":600}"#).await;
    let inside = rooms.join(&a, "sale").await;
    let waits = rooms.join(&a, "sale").await;
    let fixes = rooms.testbed.publisher();
    let letters = Publisher::new(rooms.testbed.brokers(), &topic).unwrap();
    let send = async |device: &str, title: &str| {
        fixes.send(device, Some(fix(device, now_ms()).as_bytes())).await.unwrap();
        let letter = format!(r#"{{"to":{{"users":["7"]}},"title":"{title}"}}"#);
        letters.send("7", Some(letter.as_bytes())).await.unwrap();
    };

    let query = format!("inbox&map&room=sale&ticket={}", waits.token);
    let mut first = Combined::open(&a, &query, None).await;
    first
        .until(|told| has(told, "connected", "\"unread\":0") && has(told, "queueUpdate", "\"position\":1"))
        .await;
    send("device-1", "letter 1").await;
    first
        .until(|told| has(told, "liveMapLocation", "device-1") && has(told, "notification", "letter 1"))
        .await;
    for event in &first.events {
        let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
        let control = ["status", "reset", "end"].contains(&event.event.as_str());
        assert_eq!(data["stream"].is_string(), control, "{event:?}");
    }
    let last = first.source.last_event_id().to_owned();
    assert!(last.starts_with("iu.") && last.contains("!r") && last.contains("!m"), "{last}");
    drop(first);

    send("device-2", "letter 2").await;
    let mut second = Combined::open(&b, &query, Some(last)).await;
    second
        .until(|told| has(told, "liveMapLocation", "device-2") && has(told, "notification", "letter 2"))
        .await;
    assert!(
        !has(&second.events, "notification", "letter 1")
            && !has(&second.events, "liveMapLocation", "device-1")
    );
    assert!(!has(&second.events, "reset", ""), "{:?}", second.events);

    // When one part is over, the other parts go on.
    let (status, _) = rooms.call(Method::DELETE, &a, "/v1/rooms/sale", Some(&admin()), "").await;
    assert_eq!(status, 200);
    second.until(|told| has(told, "queueClosed", "") && has(told, "end", r#""stream":"room""#)).await;
    send("device-3", "letter 3").await;
    second
        .until(|told| has(told, "liveMapLocation", "device-3") && has(told, "notification", "letter 3"))
        .await;
    drop(inside);

    // A client with an unknown id hears a reset in each part.
    let mut strange = Combined::open(&b, "inbox&map", Some("strange".into())).await;
    strange
        .until(|told| has(told, "reset", r#""stream":"inbox""#) && has(told, "reset", r#""stream":"map""#))
        .await;
    strange
        .until(|told| has(told, "notification", "letter 3") && has(told, "liveMapLocation", "device-3"))
        .await;

    let mut oldest = Combined::open(&b, "inbox&map&since=oldest", None).await;
    oldest.until(|told| has(told, "notification", "letter 1") && has(told, "notification", "letter 3")).await;
    assert!(!has(&oldest.events, "reset", ""), "{:?}", oldest.events);

    let status = async |path: &str, token: Option<&str>| {
        rooms.call(Method::HEAD, &b, path, token, "").await.0.as_u16()
    };
    let user = token("7");
    assert_eq!(status("/v1/stream", Some(&user)).await, 400);
    assert_eq!(status("/v1/stream?room=sale", Some(&user)).await, 400);
    assert_eq!(status("/v1/stream?room=sale&ticket=x", Some(&user)).await, 401);
    assert_eq!(status("/v1/stream?inbox&map", None).await, 401);
    assert_eq!(status("/v1/stream?map", None).await, 200);
}
