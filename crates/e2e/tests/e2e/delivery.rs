//! The way of a fix from Kafka to viewers, with processes and connections killed on its way.

use std::collections::HashMap;
use std::time::Duration;

use prost::Message as _;
use tokio::time::timeout;
use tutti_e2e::eventually;
use tutti_e2e::fixes::{Input, Map, map_of_viewer};
use tutti_e2e::testbed::{Edge, Testbed};
use tutti_e2e::viewer::Following;
use tutti_feed::{Event, FollowMetrics, follow};
use tutti_model::{Locations, change, names};

/// A time so long that no fix becomes stale within a test.
const LONG: (&str, &str) = ("locations.stale_after_seconds", "600");

async fn holds(edge: &Edge, expected: &Map) {
    eventually("the edge holds the fold of the input", || async { edge.map().await == *expected }).await;
}

async fn shows(viewer: &Following, expected: &Map) {
    eventually("the viewer holds the fold of the input", || async {
        map_of_viewer(&viewer.viewer()) == *expected
    })
    .await;
}

/// Checks that a viewer heard neither a step back in time nor an id twice.
fn is_consistent(viewer: &tutti_load::watch::Viewer) {
    assert_eq!(viewer.steps_back, 0);
    let mut ids = viewer.ids.clone();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), viewer.ids.len(), "an id came twice");
}

/// Reads the feeds until they have brought `fixes` fixes. Returns the timestamps of each mediaId in the order of its
/// feed.
async fn read_feeds(url: &str, shards: u32, fixes: u64) -> HashMap<String, Vec<i64>> {
    let feeds: Vec<String> = (0..shards).map(names::locations_feed).collect();
    let mut following = follow(url, &feeds, FollowMetrics::default()).unwrap();
    let mut heard: HashMap<String, Vec<i64>> = HashMap::new();
    let mut count = 0;
    let read = async {
        while count < fixes {
            match following.next().await.unwrap() {
                Event::Record { record, .. } => {
                    for change in Locations::decode(record.payload).unwrap().changes {
                        let Some(change::Change::Fix(fix)) = change.change else {
                            panic!("only fixes were sent")
                        };
                        heard.entry(fix.media_id).or_default().push(fix.timestamp_ms);
                        count += 1;
                    }
                }
                Event::Reset { reason, .. } => panic!("reset: {reason:?}"),
                Event::Heads(_) | Event::HeldBack { .. } => {}
            }
        }
    };
    let read = timeout(Duration::from_secs(120), read).await;
    assert!(read.is_ok(), "the feeds brought {count} of {fixes} fixes");
    heard
}

#[tokio::test]
async fn three_ingests_of_which_one_is_killed_bring_each_fix_once_and_two_edges_agree() {
    let testbed = Testbed::new(6).await.with(LONG.0, LONG.1);
    let (a, b) = (testbed.edge(&[]), testbed.edge(&[]));
    let mut first = testbed.ingest(&[]);
    let second = testbed.ingest(&[]);
    for service in [&first, &second, &a.service, &b.service] {
        service.wait_ready().await;
    }
    let viewer = Following::start(&a.stream()).await;
    let publisher = testbed.publisher();
    let mut input = Input::new(2000);
    input.send(&publisher, 30_000).await;
    eventually("the first ingest carries some", || async {
        first.metric("tutti_ingest_applied_records_total").await > 1000.0
    })
    .await;
    first.kill();
    let third = testbed.ingest(&[]);
    input.send(&publisher, 30_000).await;
    third.wait_ready().await;
    first.run();
    input.send(&publisher, 40_000).await;
    publisher.flush(Duration::from_secs(60)).await.unwrap();
    assert_eq!(input.sent, 100_000);

    let heard = read_feeds(&testbed.redis.url(), 3, input.sent).await;
    for (id, timestamps) in &heard {
        assert_eq!(timestamps.len(), 50, "{id}: each fix once");
        assert!(timestamps.is_sorted(), "{id}: in order");
    }
    holds(&a, &input.expected).await;
    holds(&b, &input.expected).await;
    shows(&viewer, &input.expected).await;
    is_consistent(&viewer.viewer());
    assert_eq!(viewer.viewer().resets, [""; 0]);
}

#[tokio::test]
async fn a_client_that_comes_back_on_the_other_edge_ends_like_one_that_stayed() {
    let testbed = Testbed::new(3).await;
    let (_ingest, [a, b]) = testbed.up([&[], &[]]).await;
    let publisher = testbed.publisher();
    let mut input = Input::new(300);
    let stayed = Following::start(&a.stream()).await;
    let moving = Following::start(&a.stream()).await;
    let moving_later = Following::start(&a.stream()).await;
    input.send_for(&publisher, Duration::from_secs(1), 1000).await;
    eventually("ids are heard", || async {
        !moving.viewer().last_id.is_empty() && !moving_later.viewer().last_id.is_empty()
    })
    .await;
    let (moving, moving_later) = (moving.cut(), moving_later.cut());
    // The device leaves while the client is away. The client must hear of it when it is back.
    publisher.send("device-0", None).await.unwrap();
    input.expected.remove("device-0");
    input.sent += 1; // the next device is device-1
    let absent = input.send_for(&publisher, Duration::from_millis(200), 1000);
    absent.await;
    let moved = Following::go_on(&b.stream(), moving).await;
    let c = testbed.edge(&[]);
    c.service.wait_ready().await;
    let moved_later = Following::go_on(&c.stream(), moving_later).await;
    input.send_for(&publisher, Duration::from_secs(1), 1000).await;
    publisher.flush(Duration::from_secs(30)).await.unwrap();
    for viewer in [&stayed, &moved, &moved_later] {
        shows(viewer, &input.expected).await;
        let viewer = viewer.viewer();
        is_consistent(&viewer);
        assert_eq!(viewer.resets, [""; 0]);
    }

    // A resume with `?since=`, as of an EventSource that was made again, must be the same. It must bring only what is
    // missing.
    let snapshot = c.locations().await.unwrap();
    let since = format!("{}?since={}", a.stream(), snapshot["id"].as_str().unwrap());
    let resumed = Following::start(&since).await;
    eventually("it is told the status", || async { !resumed.viewer().statuses.is_empty() }).await;
    input.send(&publisher, 1).await;
    eventually("news arrives", || async { resumed.viewer().fixes > 0 }).await;
    assert!(resumed.viewer().fixes < 50, "only what is new: {}", resumed.viewer().fixes);
    assert_eq!(resumed.viewer().resets, [""; 0]);
}

#[tokio::test]
async fn killing_every_pubsub_connection_twenty_times_loses_and_doubles_nothing() {
    let testbed = Testbed::new(3).await;
    let (_ingest, [a, b]) = testbed.up([&[], &[]]).await;
    let viewer = Following::start(&a.stream()).await;
    let publisher = testbed.publisher();
    let mut input = Input::new(500);
    let mut killed = 0;
    for _ in 0..20 {
        input.send_for(&publisher, Duration::from_millis(250), 2000).await;
        killed += testbed.redis.command::<i64>(&["CLIENT", "KILL", "TYPE", "pubsub"]).await.unwrap();
    }
    input.send_for(&publisher, Duration::from_millis(250), 2000).await;
    publisher.flush(Duration::from_secs(30)).await.unwrap();
    assert!(killed >= 20, "connections were killed: {killed}");
    shows(&viewer, &input.expected).await;
    holds(&a, &input.expected).await;
    holds(&b, &input.expected).await;
    is_consistent(&viewer.viewer());
    assert_eq!(viewer.viewer().resets, [""; 0]);
    for edge in [&a, &b] {
        let (reconnects, refills) = (
            edge.service.metric("tutti_feed_reconnects_total").await,
            edge.service.metric("tutti_feed_refills_total").await,
        );
        assert!(reconnects >= 10.0 && refills >= 10.0, "the fault was felt: {reconnects} and {refills}");
    }
}

#[tokio::test]
async fn a_second_delivery_of_everything_is_heard_by_no_client() {
    let testbed = Testbed::new(3).await;
    let first = testbed.ingest(&[]);
    let other_group = format!("{}-again", testbed.topic);
    let second = testbed.ingest(&[("routes.locations.group", &other_group)]);
    let edge = testbed.edge(&[]);
    for service in [&first, &second, &edge.service] {
        service.wait_ready().await;
    }
    for ingest in [&first, &second] {
        eventually("both hold all partitions", || async {
            ingest.metric_if_set("tutti_ingest_partitions").await == Some(3.0)
        })
        .await;
    }
    let viewer = Following::start(&edge.stream()).await;
    let publisher = testbed.publisher();
    let mut input = Input::new(200);
    input.send_for(&publisher, Duration::from_secs(3), 2000).await;
    publisher.flush(Duration::from_secs(30)).await.unwrap();
    shows(&viewer, &input.expected).await;
    let sum = async |name: &str| first.metric(name).await + second.metric(name).await;
    eventually("every record was a duplicate once", || async {
        sum("tutti_ingest_duplicate_records_total").await == input.sent as f64
    })
    .await;
    assert_eq!(sum("tutti_ingest_applied_records_total").await, input.sent as f64);
    is_consistent(&viewer.viewer());
    assert_eq!(viewer.viewer().repeats, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_has_just_read_long_logs_resumes_who_left_long_before() {
    let testbed = Testbed::new(3).await.with("locations.stale_after_seconds", "600");
    let (_ingest, [old]) = testbed.up([&[]]).await;
    let publisher = testbed.publisher();
    let mut input = Input::new(200);
    let viewer = Following::start(&old.stream()).await;
    input.send_for(&publisher, Duration::from_secs(1), 500).await;
    publisher.flush(Duration::from_secs(30)).await.unwrap();
    eventually("it is shown", || async { map_of_viewer(&viewer.viewer()) == input.expected }).await;
    let away = viewer.cut();
    // An edge that starts reads as many of these records at once as it can.
    input.send_for(&publisher, Duration::from_secs(6), 2000).await;
    publisher.flush(Duration::from_secs(30)).await.unwrap();
    eventually("it is on the map", || async { old.map().await == input.expected }).await;
    let fresh = testbed.edge(&[]);
    fresh.service.wait_ready().await;
    let back = Following::go_on(&fresh.stream(), away).await;
    eventually("it is shown what it missed", || async { map_of_viewer(&back.viewer()) == input.expected })
        .await;
    assert_eq!(back.viewer().resets, [""; 0], "its id is of this history");
}
