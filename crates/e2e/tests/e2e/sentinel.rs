//! Redis behind Sentinels. Its primary is killed, and a replica that lacks the last writes takes its place.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tutti_e2e::eventually;
use tutti_e2e::fixes::{Input, map_of_viewer};
use tutti_e2e::inboxes::{Device, Inboxes};
use tutti_e2e::kafka;
use tutti_e2e::replicas::waits_for_replicas;
use tutti_e2e::rooms::{Rooms, Stream};
use tutti_e2e::sentinel::Sentinels;
use tutti_e2e::testbed::Testbed;
use tutti_e2e::viewer::Following;

async fn testbed(sentinels: &Sentinels) -> Testbed {
    Testbed::new(3).await.with("locations.stale_after_seconds", "600").with("redis.url", &sentinels.url())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_lost_writes_loses_no_fix_and_no_notification_in_silence() {
    let mut sentinels = Sentinels::start().await;
    let inboxes = Inboxes::with(kafka::shared(), testbed(&sentinels).await, 1).await;
    let (carries, ingest) = (inboxes.ingest(), inboxes.testbed.ingest(&[]));
    let edges = [inboxes.edge(&[]).await, inboxes.edge(&[]).await];
    carries.wait_ready().await;
    ingest.wait_ready().await;
    let urls: Vec<String> = edges.iter().map(|edge| edge.url.clone()).collect();
    let publisher = inboxes.testbed.publisher();
    let mut input = Input::new(200);
    let viewers = [Following::start(&edges[0].stream()).await, Following::start(&edges[1].stream()).await];
    let devices = [Device::new(&urls[..1], "7", ""), Device::new(&urls[1..], "7", "")];
    let mut sent = BTreeSet::new();
    let mut more = async |input: &mut Input| {
        input.send_for(&publisher, Duration::from_secs(1), 500).await;
        publisher.flush(Duration::from_secs(30)).await.unwrap();
        for _ in 0..10 {
            let key = format!("n-{}", sent.len());
            let body = json!({ "to": { "users": ["7"] }, "title": key });
            sent.insert(inboxes.send_until_accepted(&urls, &key, &body).await);
        }
        sent.clone()
    };
    let all_have = async |input: &Input, sent: &BTreeSet<String>| {
        for viewer in &viewers {
            eventually("the viewers hold the input", async || {
                map_of_viewer(&viewer.viewer()) == input.expected
            })
            .await;
        }
        for device in &devices {
            eventually("the devices have what was sent", async || {
                device.look(|seen| seen.ids.iter().cloned().collect::<BTreeSet<_>>() == *sent)
            })
            .await;
        }
    };
    let first = more(&mut input).await;
    all_have(&input, &first).await;
    sentinels.until_replicated().await;

    // This is shown, and then lost.
    sentinels.cut_replica_off();
    let shown = more(&mut input).await;
    all_have(&input, &shown).await;
    sentinels.kill_primary();
    sentinels.let_replica_go_on();
    eventually("the replica is the primary", async || sentinels.has_failed_over()).await;

    let all = more(&mut input).await;
    all_have(&input, &all).await;
    for edge in &edges {
        eventually("so do the edges", async || edge.map().await == input.expected).await;
    }
    assert!(viewers.iter().all(|viewer| !viewer.viewer().resets.is_empty()), "what was lost was told");
    assert!(ingest.metric("tutti_feed_refused_total").await > 0.0, "and brought again, from Kafka");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_that_lost_tickets_no_two_hold_one_and_places_are_exact() {
    let mut sentinels = Sentinels::start().await;
    let rooms = Rooms::start(testbed(&sentinels).await, 2, &[]).await;
    let edges = [rooms.edge(&[]).await, rooms.edge(&[]).await];
    rooms.put(&edges[0], "sale", r#"{"maxActive":1,"admitPerSecond":50,"claimSeconds":600}"#).await;
    let mut kept = Vec::new();
    for n in 0..20 {
        kept.push(rooms.join(&edges[n % 2], "sale").await);
    }
    sentinels.until_replicated().await;
    sentinels.cut_replica_off();
    let mut lost = Vec::new();
    for n in 0..10 {
        lost.push(rooms.join(&edges[n % 2], "sale").await);
    }
    let mut streams = Vec::new();
    for (n, joined) in kept.iter().enumerate() {
        streams.push(Stream::open(&edges[n % 2], "sale", joined.visitor()).await);
    }
    sentinels.kill_primary();
    sentinels.let_replica_go_on();
    eventually("the replica is the primary", async || sentinels.has_failed_over()).await;

    let mut later = Vec::new();
    for _ in 0..10 {
        later.push(rooms.join_until_accepted(&edges[0], "sale").await);
    }
    // One visitor is inside. The others stand in the order of their tickets.
    for (place, joined) in kept.iter().chain(&later).skip(1).enumerate() {
        for edge in &edges {
            eventually("each edge tells the same place", async || {
                let (status, body) = rooms.act(Method::GET, edge, "sale", joined, "").await;
                status == 200 && body["position"] == place as u64 + 1
            })
            .await;
        }
    }
    for (place, stream) in streams.iter().skip(1).enumerate() {
        eventually("and so do the streams", async || {
            stream.heard().updates.last().is_some_and(|(position, _)| *position == Some(place as u64 + 1))
        })
        .await;
    }
    for joined in &lost {
        let (status, body) = rooms.act(Method::GET, &edges[1], "sale", joined, "").await;
        assert_eq!(status, 410, "a number that was given again opens no other ticket: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_must_have_does_not_count_before_it_has_it() {
    let mut sentinels = Sentinels::start().await;
    let testbed = testbed(&sentinels).await.with("redis.wait_replicas", "1");
    let (ingest, [edge]) = testbed.up([&[]]).await;
    let publisher = testbed.publisher();
    let mut input = Input::new(200);
    let cut_off = |sentinels: &mut Sentinels| sentinels.cut_replica_off();
    let go_on = |sentinels: &mut Sentinels| sentinels.let_replica_go_on();
    waits_for_replicas((&ingest, &edge), &publisher, &mut input, &mut sentinels, cut_off, go_on).await;
    sentinels.until_replicated().await;

    sentinels.kill_primary();
    eventually("the replica is the primary", async || sentinels.has_failed_over()).await;
    sentinels.return_as_replica();
    input.send_for(&publisher, Duration::from_secs(1), 500).await;
    publisher.flush(Duration::from_secs(30)).await.unwrap();
    eventually("the edge goes on", async || edge.map().await == input.expected).await;
    assert_eq!(ingest.metric("tutti_feed_refused_total").await, 0.0, "nothing was lost");
}
