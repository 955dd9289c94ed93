//! Services that wait for replicas of Redis.

use std::time::Duration;

use tutti_load::publisher::Publisher;

use crate::eventually;
use crate::fixes::Input;
use crate::service::Service;
use crate::testbed::Edge;

/// Sends to services that wait for replicas of Redis, and cuts the replicas off meanwhile. Appends fail while they
/// are cut off, and everything arrives when they go on.
///
/// # Panics
/// If that does not happen.
pub async fn waits_for_replicas<R>(
    (ingest, edge): (&Service, &Edge),
    publisher: &Publisher,
    input: &mut Input,
    redis: &mut R,
    cut_off: impl FnOnce(&mut R),
    go_on: impl FnOnce(&mut R),
) {
    let more = async |input: &mut Input| {
        input.send_for(publisher, Duration::from_secs(1), 500).await;
        publisher.flush(Duration::from_secs(30)).await.expect("Kafka takes it");
    };
    more(input).await;
    eventually("the edge has the input", async || edge.map().await == input.expected).await;
    cut_off(redis);
    let errors = async || ingest.metric("tutti_ingest_append_errors_total").await;
    let before = errors().await;
    more(input).await;
    eventually("appends fail without the replica", async || errors().await > before).await;
    go_on(redis);
    eventually("with it all arrives", async || edge.map().await == input.expected).await;
}
