//! What may be sent, by whom, and in which form.

use prost::Message as _;
use reqwest::Method;
use serde_json::json;
use tutti_e2e::eventually;
use tutti_e2e::inboxes::{Device, token};
use tutti_load::publisher::Publisher;
use tutti_model::{Notification, Recipients};

use super::{has, is_live, send, up};

#[tokio::test(flavor = "multi_thread")]
async fn any_service_may_write_to_the_topic_and_garbage_stops_nothing() {
    let (inboxes, ingest, [edge]) = up::<1>().await;
    let device = Device::new(std::slice::from_ref(&edge.url), "7", "");
    is_live(&device).await;
    let publisher = Publisher::new(inboxes.testbed.brokers(), &inboxes.topic).unwrap();
    let json = br#"{"to":{"users":["7"]},"title":"json"}"#;
    let named = br#"{"id":"their-own.1","to":{"users":["7"],"topic":null},"category":null,"title":"named","body":null}"#;
    for value in [&json[..], b"{", b"[]", br#"{"to":{"users":[]},"title":"x"}"#, named, named, b"\xff\x00"] {
        publisher.send("7", Some(value)).await.unwrap();
    }
    publisher.send("7", None).await.unwrap();
    let notification = Notification {
        to: Some(Recipients { users: vec!["7".into(), "8".into()], ..Recipients::default() }),
        title: "protobuf".into(),
        ..Notification::default()
    };
    publisher.send_as("7", Some(&notification.encode_to_vec()), Some("application/protobuf")).await.unwrap();
    has(&device, 3).await;
    let seen = device.seen();
    let titles: Vec<&str> = seen.ids.iter().map(|id| seen.data[id]["title"].as_str().unwrap()).collect();
    assert_eq!(titles, ["json", "named", "protobuf"]);
    assert_eq!(seen.ids[1], "their-own.1");
    assert_eq!(inboxes.ids(&edge, "8").await, [seen.ids[2].clone()]);
    eventually("the others are counted", || async {
        ingest.metric("tutti_ingest_rejected_records_total").await >= 5.0
    })
    .await;
    assert!(seen.twice.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_wrong_is_refused_with_a_reason() {
    let (inboxes, _ingest, [edge]) = up::<1>().await;
    let long = "x".repeat(4097);
    for (body, says) in [
        (json!({}), "to"),
        (json!({"to": {"users": []}, "title": "a"}), "users"),
        (json!({"to": {"users": ["7"], "topic": "news"}, "title": "a"}), "users or a topic"),
        (json!({"to": {"users": ["7"]}}), "title"),
        (json!([{"to": {"users": ["7"]}, "title": "a"}]), "must be one object, is an array: send each"),
        (json!([null, {"users": ["7"]}, null, "a", null, null, null]), "must be one object, is an array"),
        (json!({"to": [["7"], null], "title": "a"}), "`to` must be an object, is an array"),
        (json!({"to": {"users": [7]}, "title": "a"}), "`to.users` must be a string, is 7"),
        (json!({"to": {"users": ["7"]}, "title": {}}), "`title` must be a string, is an object"),
        (json!({"to": {"users": ["7"]}, "title": "a", "ttlSeconds": 0}), "ttlSeconds"),
        (json!({"to": {"users": ["7"]}, "title": long}), "4097"),
        (json!({"to": {"users": ["7"]}, "title": "a", "id": "b"}), "Idempotency-Key"),
        (json!({"to": {"users": ["7"]}, "title": "a", "colour": "b"}), "colour"),
        (json!({"to": {"users": ["7"]}, "data": (0..40).fold(json!(1), |deep, _| json!([deep]))}), "deep"),
    ] {
        let answer = inboxes.send(&edge.url, "k", &body).await.unwrap();
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.body["detail"].as_str().unwrap().contains(says), "{body}: {}", answer.body);
    }
    let answer = inboxes.send(&edge.url, "", &json!({"to": {"users": ["7"]}, "title": "a"})).await.unwrap();
    assert_eq!(answer.status, 400);
    let huge = json!({"to": {"users": ["7"]}, "title": "a", "data": "x".repeat(1 << 20)});
    let answer = inboxes.send(&edge.url, "k", &huge).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.body["status"].as_u64()),
        (413, Some(413)),
        "a problem document"
    );
    for (method, path) in [
        (Method::PUT, "/v1/inbox"),
        (Method::GET, "/v1/notifications"),
        (Method::GET, "/v1/inbox/a"),
        (Method::POST, "/v1/map/stream"),
        (Method::POST, "/v1/rooms/a"),
        (Method::GET, "/v1/rooms/a/tickets"),
        (Method::PUT, "/v1/topics"),
    ] {
        let answer = inboxes.call(method, &edge, path, &token("7"), "").await;
        assert_eq!((answer.status.as_u16(), answer.body["status"].as_u64()), (405, Some(405)), "{path}");
        assert!(answer.body["detail"].as_str().unwrap().contains(", but "), "{path}: {}", answer.body);
    }
    assert_eq!(inboxes.call(Method::HEAD, &edge, "/v1/inbox", &token("7"), "").await.status, 200);
    let users: Vec<String> = (0..1000).map(|n| format!("u-{n}")).collect();
    let body =
        json!({"to": {"users": users}, "title": "a", "data": "y".repeat(16_000), "body": "x".repeat(4000)});
    let id = send(&inboxes, &edge, "thousand", body).await;
    eventually("the last of a thousand has it", || async {
        inboxes.ids(&edge, "u-999").await == [id.clone()]
    })
    .await;
}
