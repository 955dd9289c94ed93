//! A Redis and a Kafka that are lost, emptied, set back or stopped.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::sleep;
use tutti_e2e::eventually;
use tutti_e2e::fixes::{Input, map_of_viewer};
use tutti_e2e::kafka::Kafka;
use tutti_e2e::testbed::Testbed;
use tutti_e2e::viewer::Following;

const LONG: (&str, &str) = ("locations.stale_after_seconds", "600");

#[tokio::test]
async fn a_redis_that_comes_back_empty_is_filled_again_and_its_viewers_get_a_reset() {
    let mut testbed = Testbed::new(3).await.with(LONG.0, LONG.1);
    let (_ingest, [a, b]) = testbed.up([&[], &[]]).await;
    let publisher = testbed.publisher();
    let mut input = Input::new(300);
    let viewer = Following::start(&a.stream()).await;
    input.send_for(&publisher, Duration::from_secs(1), 1000).await;
    publisher.flush(Duration::from_secs(30)).await.unwrap();
    eventually("the viewer holds the input", || async { map_of_viewer(&viewer.viewer()) == input.expected })
        .await;
    let away = viewer.viewer().clone();

    testbed.redis.kill();
    testbed.redis.run().unwrap();
    eventually("ingest filled it again, from Kafka", || async { a.map().await == input.expected }).await;
    input.send_for(&publisher, Duration::from_secs(1), 500).await;
    publisher.flush(Duration::from_secs(30)).await.unwrap();
    for edge in [&a, &b] {
        eventually("the edges converge", || async { edge.map().await == input.expected }).await;
    }
    eventually("the viewer too", || async { map_of_viewer(&viewer.viewer()) == input.expected }).await;
    assert!(!viewer.viewer().resets.is_empty(), "the loss was announced");
    assert!(viewer.is_open(), "on the same connection");

    let back = Following::go_on(&b.stream(), away).await;
    eventually("who was away converges", || async { map_of_viewer(&back.viewer()) == input.expected }).await;
    assert_eq!(back.viewer().resets.len(), 1, "its cursor is of another epoch");
}

#[tokio::test]
async fn a_redis_set_back_to_a_snapshot_resets_who_was_shown_more_and_nobody_else() {
    let mut testbed = Testbed::new(3).await.with(LONG.0, LONG.1);
    let (mut ingest, [a, b]) = testbed.up([&[], &[]]).await;
    let publisher = testbed.publisher();
    let mut input = Input::new(300);
    let early = Following::start(&a.stream()).await;
    input.send_for(&publisher, Duration::from_secs(1), 1000).await;
    publisher.flush(Duration::from_secs(30)).await.unwrap();
    eventually("the first part is shown", || async { map_of_viewer(&early.viewer()) == input.expected })
        .await;
    // A viewer that left before the snapshot was shown nothing that the snapshot lacks.
    let early = early.cut();
    ingest.kill();
    testbed.redis.save().await.unwrap();
    assert!(testbed.redis.snapshot().is_file());
    ingest.run();

    let late = Following::start(&a.stream()).await;
    input.send_for(&publisher, Duration::from_secs(1), 1000).await;
    publisher.flush(Duration::from_secs(30)).await.unwrap();
    eventually("the second part is shown", || async { map_of_viewer(&late.viewer()) == input.expected })
        .await;

    testbed.redis.kill();
    testbed.redis.run().unwrap();
    input.send_for(&publisher, Duration::from_secs(1), 500).await;
    publisher.flush(Duration::from_secs(30)).await.unwrap();
    for edge in [&a, &b] {
        eventually("the edges converge", || async { edge.map().await == input.expected }).await;
    }
    eventually("the viewer converges", || async { map_of_viewer(&late.viewer()) == input.expected }).await;
    assert!(!late.viewer().resets.is_empty(), "what it was shown was lost: it is told");
    let early = Following::go_on(&b.stream(), early).await;
    eventually("the early one converges", || async { map_of_viewer(&early.viewer()) == input.expected })
        .await;
    assert_eq!(early.viewer().resets, [""; 0], "nothing that it was shown was lost");
    assert!(ingest.metric("tutti_feed_refused_total").await > 0.0, "ingest was sent back");
}

#[tokio::test]
async fn while_redis_is_stopped_streams_stay_open_say_stale_and_go_on() {
    let testbed = Testbed::new(3).await.with(LONG.0, LONG.1);
    let (_ingest, [edge]) = testbed.up([&[("streams.heartbeat_seconds", "1")]]).await;
    let publisher = testbed.publisher();
    let mut input = Input::new(300);
    let viewer = Following::start(&edge.stream()).await;
    input.send_for(&publisher, Duration::from_secs(1), 1000).await;
    eventually("it is live", || async { viewer.viewer().statuses.last().is_some_and(|s| s == "live") }).await;

    testbed.redis.signal(Signal::SIGSTOP);
    let stopped = sleep(Duration::from_secs(10)); // the fault itself lasts so long, or longer
    let during = async {
        input.send_for(&publisher, Duration::from_secs(5), 500).await;
        eventually("it is stale", || async { viewer.viewer().statuses.last().is_some_and(|s| s == "stale") })
            .await;
        assert!(viewer.is_open());
        assert_eq!(edge.service.ready().await.unwrap().0, 200, "an edge that was ready stays so");
        let newcomer = Following::start(&edge.stream()).await;
        eventually("a newcomer is told at once", || async { newcomer.viewer().statuses == ["stale"] }).await;
    };
    tokio::join!(stopped, during);
    testbed.redis.signal(Signal::SIGCONT);
    input.send_for(&publisher, Duration::from_secs(1), 500).await;
    publisher.flush(Duration::from_secs(30)).await.unwrap();
    eventually("the viewer converges", || async { map_of_viewer(&viewer.viewer()) == input.expected }).await;
    eventually("it is live again", || async { viewer.viewer().statuses.last().is_some_and(|s| s == "live") })
        .await;
    assert!(viewer.is_open(), "on the same connection");
    assert_eq!(viewer.viewer().resets, [""; 0]);
    assert_eq!(viewer.viewer().steps_back, 0);
}

#[tokio::test]
async fn while_kafka_restarts_streams_stay_open_and_go_on() {
    let kafka = Kafka::start().unwrap();
    let testbed = Testbed::on(&kafka, 3).await.with(LONG.0, LONG.1);
    let (_ingest, [edge]) = testbed.up([&[]]).await;
    let publisher = testbed.publisher();
    let mut input = Input::new(300);
    let viewer = Following::start(&edge.stream()).await;
    input.send_for(&publisher, Duration::from_secs(1), 1000).await;
    publisher.flush(Duration::from_secs(30)).await.unwrap();
    kafka.kill();
    input.send(&publisher, 500).await; // they wait in the producer
    kafka.run().unwrap();
    input.send_for(&publisher, Duration::from_secs(1), 500).await;
    publisher.flush(Duration::from_secs(60)).await.unwrap();
    eventually("the viewer converges", || async { map_of_viewer(&viewer.viewer()) == input.expected }).await;
    assert!(viewer.is_open(), "on the same connection");
    assert_eq!(viewer.viewer().resets, [""; 0]);
    assert_eq!(viewer.viewer().steps_back, 0);
}

#[tokio::test]
async fn a_topic_made_anew_is_a_gap_that_viewers_are_told_of() {
    let kafka = Kafka::start().unwrap();
    let testbed = Testbed::on(&kafka, 1).await.with(LONG.0, LONG.1);
    let (mut ingest, [edge]) = testbed.up([&[]]).await;
    let publisher = testbed.publisher();
    let mut input = Input::new(10);
    let viewer = Following::start(&edge.stream()).await;
    input.send(&publisher, 100).await;
    publisher.flush(Duration::from_secs(30)).await.unwrap();
    eventually("the viewer holds the input", || async { map_of_viewer(&viewer.viewer()) == input.expected })
        .await;
    ingest.kill();
    kafka.delete_topic(&testbed.topic).await.unwrap();
    eventually("the topic is created again", || async {
        kafka.create_topic(&testbed.topic, 1).await.is_ok()
    })
    .await;
    ingest.run();
    let publisher = testbed.publisher();
    input.send(&publisher, 20).await;
    publisher.flush(Duration::from_secs(30)).await.unwrap();
    eventually("the viewer converges", || async { map_of_viewer(&viewer.viewer()) == input.expected }).await;
    eventually("the gap is announced", || async { viewer.viewer().resets == ["gap"] }).await;
    assert_eq!(ingest.metric("tutti_ingest_gaps_total").await, 1.0);
}
