//! Answers that are not streams: how they are compressed, and that a crowd of one address keeps nobody else waiting.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use flate2::read::GzDecoder;
use reqwest::Response;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tutti_e2e::fixes::{Input, fix, padded_fix};
use tutti_e2e::inboxes::{Inboxes, token};
use tutti_e2e::testbed::{Edge, Testbed, UNLIMITED};
use tutti_e2e::{client, eventually, kafka};

/// Requests a path with headers.
async fn get(edge: &Edge, path: &str, headers: &[(&str, &str)]) -> Response {
    let request = client().get(format!("{}{path}", edge.url));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.send().await.unwrap()
}

/// Returns the JSON of an answer, and whether it was compressed.
async fn read(answer: Response) -> (Value, bool) {
    assert_eq!(answer.status(), 200);
    let varies = answer.headers().get_all("vary").iter().flat_map(|value| value.to_str().unwrap().split(','));
    let by_encoding = varies.filter(|name| name.trim().eq_ignore_ascii_case("accept-encoding")).count();
    assert_eq!(by_encoding, 1, "caches are told once: {:?}", answer.headers());
    let coding = answer.headers().get("content-encoding").map(|value| value.to_str().unwrap().to_owned());
    let length: usize = answer.headers()["content-length"].to_str().unwrap().parse().unwrap();
    let bytes = answer.bytes().await.unwrap();
    assert_eq!(bytes.len(), length);
    match coding.as_deref() {
        None => (serde_json::from_slice(&bytes).unwrap(), false),
        Some("gzip") => {
            let mut text = String::new();
            GzDecoder::new(&*bytes).read_to_string(&mut text).unwrap();
            assert!(length * 2 < text.len(), "{length} of {}", text.len());
            (serde_json::from_str(&text).unwrap(), true)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_map_is_compressed_for_clients_that_take_gzip_and_streams_are_as_they_were() {
    let testbed = Testbed::new(1).await.with("locations.stale_after_seconds", "600");
    let (_ingest, [edge]) = testbed.up([&[]]).await;
    let publisher = testbed.publisher();
    let mut input = Input::new(200);
    input.send(&publisher, 200).await;
    eventually("the map is there", async || edge.map().await == input.expected).await;
    for accept in ["application/json", "application/geo+json"] {
        let ask = async |coding| {
            let headers = [("accept", accept), ("accept-encoding", coding)];
            read(get(&edge, "/v1/map/locations", &headers).await).await
        };
        let (plain, is_compressed) = ask("identity").await;
        assert!(!is_compressed);
        let list = if accept == "application/json" { "locations" } else { "features" };
        assert_eq!(plain[list].as_array().unwrap().len(), 200);
        for (coding, takes) in [("gzip, deflate, br", true), ("gzip;q=0, br", false), ("zstd", false)] {
            let (document, is_compressed) = ask(coding).await;
            assert_eq!((is_compressed, &document[list]), (takes, &plain[list]), "{coding}");
        }
    }
    // All devices are at 37.7, -122.4, and none is in this box.
    let empty = get(&edge, "/v1/map/locations?bbox=8,47,9,48", &[("accept-encoding", "gzip")]).await;
    assert!(!empty.headers().contains_key("content-encoding"), "there is nothing to gain");
    let mut stream = get(&edge, "/v1/map/stream", &[("accept-encoding", "identity")]).await;
    let first = stream.chunk().await.unwrap().unwrap();
    assert!(first.starts_with(b"event: heartbeat\n"), "{first:?}");
}

#[tokio::test]
async fn a_list_of_notifications_is_compressed_where_it_is_long() {
    let inboxes = Inboxes::start(kafka::shared(), 1).await;
    let ingest = inboxes.ingest();
    let edge = inboxes.edge(&[]).await;
    ingest.wait_ready().await;
    for n in 0..20 {
        let body =
            json!({"to": {"users": ["7"]}, "title": "Shipped", "body": format!("Number {n} is on its way.")});
        inboxes.send_until_accepted(std::slice::from_ref(&edge.url), &format!("key-{n}"), &body).await;
    }
    let bearer = format!("Bearer {}", token("7"));
    let list = async |query: &str, coding: &str| {
        let headers = [("authorization", bearer.as_str()), ("accept-encoding", coding)];
        get(&edge, &format!("/v1/inbox{query}"), &headers).await
    };
    eventually("all are filed", async || {
        let listed: Value = list("", "identity").await.json().await.unwrap();
        listed["notifications"].as_array().unwrap().len() == 20
    })
    .await;
    let (plain, compressed) = (read(list("", "identity").await).await, read(list("", "gzip").await).await);
    assert_eq!((plain.1, compressed.1), (false, true));
    assert_eq!(plain.0["notifications"], compressed.0["notifications"]);
    let one = list("?limit=1", "gzip").await;
    assert!(!one.headers().contains_key("content-encoding"));
}

/// In this test, 60 clients of one address request the whole map in all forms, again and again, while the map moves.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_asks_for_the_whole_map_keeps_nobody_from_a_part_of_it() {
    let testbed = Testbed::new(1).await.with("locations.stale_after_seconds", "600");
    let trusting = [UNLIMITED[0], UNLIMITED[1], ("http.trusted_proxies", "127.0.0.1/32")];
    let (_ingest, [edge]) = testbed.up([&trusting]).await;
    let edge = Arc::new(edge);
    let (publisher, padding) = (testbed.publisher(), "p".repeat(200));
    let mut input = Input::new(2000);
    input.send_each(&publisher, 2000, |id, at| padded_fix(id, at, &padding)).await;
    publisher.send("here", Some(fix("here", tutti_load::now_ms()).as_bytes())).await.unwrap();
    eventually("the map is there", async || edge.map().await.len() == 2001).await;

    let (whole, enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut crowd = JoinSet::new();
    for n in 0..60 {
        let (edge, whole, enough) = (edge.clone(), whole.clone(), enough.clone());
        crowd.spawn(async move {
            let accept = if n % 2 == 0 { "application/json" } else { "application/geo+json" };
            let headers = [("accept", accept), ("x-forwarded-for", "203.0.113.9")];
            while !enough.load(Ordering::Relaxed) {
                let answer = get(&edge, "/v1/map/locations", &headers).await;
                // The client may have to read 64 MB of answers.
                if answer.status() == 200 && answer.bytes().await.is_ok() {
                    whole.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    let others = [("x-forwarded-for", "203.0.113.10")];
    let mut parts = 0;
    while parts < 30 || whole.load(Ordering::Relaxed) < 120 {
        input.send_each(&publisher, 1, |id, at| padded_fix(id, at, &padding)).await;
        let answer = get(&edge, "/v1/map/locations?bbox=-122.5,37.6,-122.3,37.8", &others).await;
        let (part, _) = read(answer).await;
        assert_eq!(part["locations"].as_array().unwrap().len(), 1);
        parts += 1;
    }
    enough.store(true, Ordering::Relaxed);
    while let Some(client) = crowd.join_next().await {
        client.unwrap();
    }
    let metric = async |name| edge.service.metric(name).await;
    let copies = metric(r#"tutti_edge_map_copies_total{part="whole"}"#).await;
    let steps = metric("tutti_edge_ticks_total").await;
    assert!(copies >= 1.0 && copies <= 2.0 * steps, "{copies} copies of {steps} steps in two forms");
    assert_eq!(metric(r#"tutti_edge_turns_waiting{turn="map_copy"}"#).await, 0.0);
}
