//! Notifications to users' devices.

use std::time::Duration;

use prost::Message as _;
use reqwest::Method;
use serde_json::{Value, json};
use tutti::token::sign;
use tutti_e2e::eventually;
use tutti_e2e::inboxes::{Device, Inboxes, sender, token};
use tutti_e2e::kafka;
use tutti_e2e::rooms::SECRET;
use tutti_e2e::service::Service;
use tutti_e2e::testbed::Edge;
use tutti_load::publisher::Publisher;
use tutti_model::{Notification, Recipients};

/// One replica, an ingest, and edges.
async fn up<const EDGES: usize>() -> (Inboxes, Service, [Edge; EDGES]) {
    let inboxes = Inboxes::start(kafka::shared(), 1).await;
    let ingest = inboxes.ingest();
    let edges: [Edge; EDGES] =
        std::array::from_fn(|_| inboxes.new_edge(&[("streams.heartbeat_seconds", "1")]));
    ingest.wait_ready().await;
    for edge in &edges {
        edge.service.wait_ready().await;
    }
    (inboxes, ingest, edges)
}

fn urls(edges: &[Edge]) -> Vec<String> {
    edges.iter().map(|edge| edge.url.clone()).collect()
}

/// Waits until the device is told what comes.
async fn is_live(device: &Device) {
    eventually("the device is live", || async {
        device.look(|seen| !seen.connected.is_empty() && !seen.last_id.is_empty())
    })
    .await;
}

async fn has(device: &Device, count: usize) {
    eventually("the device has them", || async { device.look(|seen| seen.ids.len() >= count) }).await;
}

async fn send(inboxes: &Inboxes, edge: &Edge, key: &str, notification: Value) -> String {
    inboxes.send_until_accepted(std::slice::from_ref(&edge.url), key, &notification).await
}

#[tokio::test(flavor = "multi_thread")]
async fn all_ten_devices_of_a_user_get_any_text_as_it_was_sent_and_nobody_else_does() {
    let (inboxes, _ingest, edges) = up::<2>().await;
    let all = urls(&edges);
    let devices: Vec<Device> =
        (0..10).map(|n| Device::new(&all[n % 2..=n % 2], "7", &format!("?device=d-{n}"))).collect();
    let other = Device::new(&all[..1], "77", "");
    for device in devices.iter().chain([&other]) {
        is_live(device).await;
    }
    let text = "a|b\n\r\n\0 <\u{1f600}> {\"}\\ \u{2028} end";
    let sent = json!({
        "to": { "users": ["7", "8"] },
        "category": "order|x",
        "title": text,
        "body": text,
        "data": { "n": 1, "deep": [text, { "k|\n": null }] },
        "ttlSeconds": 3600,
    });
    let id = send(&inboxes, &edges[0], "first", sent.clone()).await;
    for (n, device) in devices.iter().enumerate() {
        has(device, 1).await;
        let seen = device.seen();
        assert_eq!(seen.connected, [json!({ "device": format!("d-{n}"), "unread": 0 })]);
        assert_eq!((seen.ids.as_slice(), seen.unread), ([id.clone()].as_slice(), Some(1)));
        let got = &seen.data[&id];
        for field in ["category", "title", "body", "data"] {
            assert_eq!(got[field], sent[field]);
        }
        let lives = got["expiresAt"].as_i64().unwrap() - got["createdAt"].as_i64().unwrap();
        assert_eq!(lives, 3_600_000);
    }
    let again = send(&inboxes, &edges[1], "first", sent).await;
    assert_eq!(again, id, "the same key is the same notification");
    let second = send(&inboxes, &edges[1], "second", json!({"to": {"users": ["7"]}, "title": "2"})).await;
    for device in &devices {
        has(device, 2).await;
        assert_eq!(device.seen().ids, [id.clone(), second.clone()]);
    }
    assert_eq!(inboxes.ids(&edges[0], "7").await, [second, id.clone()]);
    assert_eq!(inboxes.ids(&edges[1], "8").await, [id]);
    assert_eq!(other.seen().ids, Vec::<String>::new());
    assert_eq!(inboxes.ids(&edges[1], "77").await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_device_reads_or_deletes_the_others_hear_and_so_do_those_that_were_away() {
    let (inboxes, _ingest, edges) = up::<2>().await;
    let all = urls(&edges);
    let (here, away) = (Device::new(&all[1..], "7", ""), Device::new(&all[..1], "7", ""));
    is_live(&here).await;
    is_live(&away).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let key = format!("n-{n}");
        ids.push(send(&inboxes, &edges[0], &key, json!({"to": {"users": ["7"]}, "title": key})).await);
    }
    has(&here, 5).await;
    has(&away, 5).await;
    let seen = away.leave();
    let call = |method: Method, path: String, body: &'static str| {
        let (inboxes, edge) = (&inboxes, &edges[0]);
        async move { inboxes.call(method, edge, &path, &token("7"), body).await }
    };
    let read = call(Method::POST, format!("/v1/inbox/{}/read", ids[3]), "").await;
    assert_eq!((read.status.as_u16(), read.body["unread"].as_u64()), (200, Some(4)));
    let again = call(Method::POST, format!("/v1/inbox/{}/read", ids[3]), "").await;
    assert_eq!(again.body["unread"], 4, "once is enough");
    let body: &'static str = Box::leak(json!({ "upTo": ids[1] }).to_string().into_boxed_str());
    let read_to = call(Method::POST, "/v1/inbox/read".into(), body).await;
    assert_eq!(read_to.body["unread"], 2);
    let deleted = call(Method::DELETE, format!("/v1/inbox/{}", ids[4]), "").await;
    assert_eq!((deleted.status.as_u16(), deleted.body["unread"].as_u64()), (200, Some(1)));
    let gone = call(Method::DELETE, format!("/v1/inbox/{}", ids[4]), "").await;
    assert_eq!((gone.status.as_u16(), gone.body["unread"].as_u64()), (200, Some(1)), "once is enough");
    assert_eq!(call(Method::POST, format!("/v1/inbox/{}/read", ids[4]), "").await.status, 404);
    assert_eq!(call(Method::POST, "/v1/inbox/a%20b/read".into(), "").await.status, 400);
    for bad in ["[]", r#"["n-1"]"#, "{}", r#"{"upTo":null}"#, r#"{"upTo":7}"#, r#"{"upTo":"a","upTo":"a"}"#] {
        let answer = call(Method::POST, "/v1/inbox/read".into(), bad).await;
        assert_eq!(answer.status, 400, "{bad}");
        assert!(answer.body["detail"].as_str().unwrap().contains("upTo"), "{bad}: {}", answer.body);
    }

    eventually("the other device hears it", || async { here.look(|seen| !seen.deleted.is_empty()) }).await;
    let back = Device::start(&reqwest::Client::new(), &all[1..], "7", "", seen);
    eventually("who was away hears it", || async { back.look(|seen| !seen.deleted.is_empty()) }).await;
    for device in [&here, &back] {
        let seen = device.seen();
        let read: Vec<String> = seen.read.iter().cloned().collect();
        let mut expected = vec![ids[0].clone(), ids[1].clone(), ids[3].clone()];
        expected.sort();
        assert_eq!((read, seen.unread), (expected, Some(1)));
        assert_eq!(seen.deleted.iter().collect::<Vec<_>>(), [&ids[4]]);
        assert_eq!((seen.ids.len(), seen.twice.len(), seen.resets.len()), (5, 0, 0));
    }

    let list = inboxes.list(&edges[1], "7", "?limit=2").await;
    let listed = |list: &Value| -> Vec<(String, bool)> {
        let all = list["notifications"].as_array().unwrap().iter();
        all.map(|one| (one["id"].as_str().unwrap().to_owned(), one["read"] == true)).collect()
    };
    assert_eq!(listed(&list), [(ids[3].clone(), true), (ids[2].clone(), false)]);
    assert_eq!(list["unread"], 1);
    let next = inboxes.list(&edges[1], "7", &format!("?before={}", list["next"].as_str().unwrap())).await;
    assert_eq!(listed(&next), [(ids[1].clone(), true), (ids[0].clone(), true)]);
    let rest = inboxes.list(&edges[1], "7", &format!("?limit=5&before={}", ids[2])).await;
    assert_eq!(listed(&rest), [(ids[1].clone(), true), (ids[0].clone(), true)]);
    assert_eq!(rest["next"], Value::Null);
    assert_eq!(listed(&inboxes.list(&edges[0], "7", "?unread=true").await), [(ids[2].clone(), false)]);
    for bad in ["?limit=0", "?limit=x", "?unread=7"] {
        let answer = inboxes.call(Method::GET, &edges[0], &format!("/v1/inbox{bad}"), &token("7"), "").await;
        assert_eq!(answer.status, 400, "{bad}");
    }
    // A page lists first, and then goes on from there.
    let cursor = list["cursor"].as_str().unwrap();
    let since = Device::new(&all[..1], "7", &format!("?since={cursor}"));
    is_live(&since).await;
    let next = send(&inboxes, &edges[1], "next", json!({"to": {"users": ["7"]}, "title": "next"})).await;
    has(&since, 1).await;
    assert_eq!(since.seen().ids, [next]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_anywhere_hears_exactly_what_it_missed_or_a_reset_beyond_what_is_kept() {
    let testbed = tutti_e2e::testbed::Testbed::on(kafka::shared(), 1).await.with("inbox.keep", "20");
    let inboxes = Inboxes::with(kafka::shared(), testbed, 1).await;
    let ingest = inboxes.ingest();
    let edges = [inboxes.edge(&[]).await, inboxes.edge(&[]).await];
    ingest.wait_ready().await;
    let all = urls(&edges);
    let first = Device::new(&all[..1], "7", "");
    is_live(&first).await;
    let mut ids = Vec::new();
    let mut next = async |count: usize| {
        for _ in 0..count {
            let key = format!("n-{}", ids.len());
            ids.push(send(&inboxes, &edges[0], &key, json!({"to": {"users": ["7"]}, "body": key})).await);
        }
        // Accepted is not filed yet.
        let newest = ids.last().cloned();
        eventually("all are filed", async || {
            let list = inboxes.list(&edges[0], "7", "?limit=1").await;
            list["notifications"][0]["id"].as_str() == newest.as_deref()
        })
        .await;
        ids.clone()
    };
    next(3).await;
    has(&first, 3).await;
    let seen = first.leave();
    let resume = |seen| Device::start(&reqwest::Client::new(), &all[1..], "7", "", seen);

    let ids = next(20).await;
    let back = resume(seen.clone());
    has(&back, 23).await;
    let back = back.leave();
    assert_eq!((back.ids.clone(), back.resets.len(), back.connected.len()), (ids, 0, 2));
    assert_eq!(back.connected[1]["unread"], 20, "the oldest three are not kept");

    let ids = next(1).await;
    let late = resume(seen);
    has(&late, 20).await;
    let late = late.leave();
    assert_eq!((late.resets.as_slice(), late.ids.as_slice()), (["too_old".to_owned()].as_slice(), &ids[4..]));

    let mut odd = back.clone();
    odd.last_id = "u.!".into();
    let odd = resume(odd);
    eventually("it is told", || async { odd.look(|seen| seen.resets == ["unknown_id"]) }).await;
    has(&odd, 20).await;
    let mut ahead = back.clone();
    ahead.last_id = format!("u.{}", tutti_feed::Cursor(vec![None]).to_text());
    let ahead = resume(ahead);
    eventually("it is told", || async { ahead.look(|seen| seen.resets == ["too_old"]) }).await;
    let oldest = Device::new(&all[..1], "7", "?since=oldest");
    has(&oldest, 20).await;
    assert_eq!(oldest.seen().ids, ids[4..]);
    assert!(oldest.seen().resets.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_reaches_those_whose_token_allows_it_and_is_in_nobodys_inbox() {
    let (inboxes, _ingest, edges) = up::<2>().await;
    let all = urls(&edges);
    let both = Device::new(&all[..1], "7", "?topics=news,sport");
    let news = Device::new(&all[1..], "8", "?topics=news");
    let none = Device::new(&all[1..], "9", "");
    for device in [&both, &news, &none] {
        is_live(device).await;
    }
    let of = |topic: &str, title: &str| json!({ "to": { "topic": topic }, "title": title });
    let a = send(&inboxes, &edges[0], "a", of("news", "a")).await;
    let b = send(&inboxes, &edges[0], "b", of("sport", "b")).await;
    let c = send(&inboxes, &edges[1], "c", json!({ "to": { "users": ["7"] }, "title": "c" })).await;
    has(&both, 3).await;
    has(&news, 1).await;
    let seen = both.leave();
    assert_eq!(
        (seen.data[&a]["topic"].as_str(), seen.data[&b]["topic"].as_str()),
        (Some("news"), Some("sport"))
    );
    assert_eq!((seen.data[&c]["topic"].as_str(), seen.unread), (None, Some(1)));
    assert_eq!(news.seen().ids, [a]);
    assert!(none.seen().ids.is_empty());
    assert_eq!(inboxes.ids(&edges[0], "7").await, std::slice::from_ref(&c));

    // Of what was missed each feed tells its own; a topic that is new is heard from now on.
    let d = send(&inboxes, &edges[0], "d", of("news", "d")).await;
    let e = send(&inboxes, &edges[0], "e", of("sport", "e")).await;
    let f = send(&inboxes, &edges[0], "f", of("other", "f")).await;
    for (topic, count) in [("news", 2), ("sport", 2), ("other", 1)] {
        let address = format!("topic:{topic}");
        eventually("it is kept", || async { inboxes.kept(&address).await.len() == count }).await;
    }
    let mut back = seen.clone();
    back.ids.clear();
    let back = Device::start(&reqwest::Client::new(), &all[1..], "7", "?topics=other,news", back);
    has(&back, 1).await;
    let g = send(&inboxes, &edges[0], "g", of("other", "g")).await;
    has(&back, 2).await;
    assert_eq!(back.seen().ids, [d, g], "neither {e} nor {f}");

    let narrow = sign(SECRET, "7", "inbox:topics:news", Duration::from_secs(60)).unwrap();
    for (query, status) in [("?topics=news", 200), ("?topics=news,sport", 403), ("?topics=a%20b", 400)] {
        let path = format!("/v1/inbox/stream{query}");
        let answer = inboxes.call(Method::HEAD, &edges[0], &path, &narrow, "").await;
        assert_eq!(answer.status.as_u16(), status, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_users_token_opens_nothing_of_anothers_and_bad_tokens_open_nothing() {
    let (inboxes, _ingest, [edge]) = up::<1>().await;
    let id = send(&inboxes, &edge, "a", json!({"to": {"users": ["7"]}, "title": "secret"})).await;
    eventually("it is there", || async { inboxes.ids(&edge, "7").await.len() == 1 }).await;
    let forged = sign("another-secret-of-more-than-32-bytes!", "7", "", Duration::from_secs(60)).unwrap();
    let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiI3IiwiZXhwIjo5OTk5OTk5OTk5fQ.";
    let expired = jsonwebtoken::encode(
        &jsonwebtoken::Header::default(),
        &json!({ "sub": "7", "exp": 1_700_000_000 }),
        &jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes()),
    )
    .unwrap();
    let nobody = sign(SECRET, "", "", Duration::from_secs(60)).unwrap();
    let paths = [
        (Method::GET, "/v1/inbox/stream".to_owned()),
        (Method::GET, "/v1/inbox".to_owned()),
        (Method::POST, format!("/v1/inbox/{id}/read")),
        (Method::POST, "/v1/inbox/read".to_owned()),
        (Method::DELETE, format!("/v1/inbox/{id}")),
    ];
    for (method, path) in &paths {
        for bad in ["", &forged, unsigned, &expired, &nobody] {
            let answer = inboxes.call(method.clone(), &edge, path, bad, r#"{"upTo":"x"}"#).await;
            assert_eq!(answer.status, 401, "{method} {path} {bad}");
        }
    }
    // The name of another user gives nothing of hers.
    assert!(inboxes.ids(&edge, "8").await.is_empty());
    let theirs = token("8");
    for (method, path, status) in [
        (Method::POST, format!("/v1/inbox/{id}/read"), 404),
        (Method::DELETE, format!("/v1/inbox/{id}"), 200),
    ] {
        let answer = inboxes.call(method, &edge, &path, &theirs, "").await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
    }
    let list = inboxes.list(&edge, "7", "").await;
    assert_eq!(
        (list["unread"].as_u64(), list["notifications"][0]["title"].as_str()),
        (Some(1), Some("secret"))
    );
    // A browser sends its cookie along whatever page asks.
    let ask = async |origin: &str| {
        let request = reqwest::Client::new().post(format!("{}/v1/inbox/{id}/read", edge.url));
        let cookie = format!("tutti_token={}", token("7"));
        request.header("cookie", cookie).header("origin", origin).send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask("https://elsewhere.example").await, 401);
    assert_eq!(inboxes.list(&edge, "7", "").await["unread"].as_u64(), Some(1));
    assert_eq!(ask(&edge.url).await, 200);
    assert_eq!(inboxes.list(&edge, "7", "").await["unread"].as_u64(), Some(0));
    // Sending and asking who is there need scopes.
    let answer = inboxes.call(Method::POST, &edge, "/v1/notifications", &theirs, "{}").await;
    assert_eq!(answer.status, 403);
    let answer = inboxes.call(Method::GET, &edge, "/v1/presence/7", &theirs, "").await;
    assert_eq!(answer.status, 403);

    // A token that expires while the stream is open ends it.
    let short = sign(SECRET, "7", "", Duration::from_secs(2)).unwrap();
    let request = tutti_load::sse::Request {
        url: format!("{}/v1/inbox/stream", edge.url),
        last_event_id: None,
        token: Some(short),
    };
    let mut source = tutti_load::sse::Source::open(&request).await.unwrap();
    let mut ends = Vec::new();
    while let Some(event) = source.next().await.unwrap() {
        ends.extend((event.event == "end").then_some(event.data));
    }
    assert_eq!(ends, [r#"{"reason":"token_expired"}"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_is_gone_from_the_registry_and_its_devices_too() {
    let (inboxes, _ingest, [mut a, b]) = up::<2>().await;
    let phone = Device::new(std::slice::from_ref(&a.url), "7", "?device=phone");
    let laptop = Device::new(std::slice::from_ref(&b.url), "7", "?device=laptop");
    is_live(&phone).await;
    is_live(&laptop).await;
    let devices = async || {
        let answer = inboxes.call(Method::GET, &b, "/v1/presence/7", &sender(), "").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let all = answer.body["devices"].as_array().unwrap().clone();
        assert_eq!(answer.body["online"], !all.is_empty());
        let mut all: Vec<String> = all.iter().map(|one| one["device"].as_str().unwrap().to_owned()).collect();
        all.sort();
        all
    };
    eventually("both are listed", || async { devices().await == ["laptop", "phone"] }).await;
    a.service.kill();
    let killed = std::time::Instant::now();
    eventually("the killed one is gone", || async { devices().await == ["laptop"] }).await;
    assert!(killed.elapsed() < Duration::from_secs(30), "within the time that was promised");
    drop(laptop);
    eventually("and the one that left", || async { devices().await.is_empty() }).await;
}

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
