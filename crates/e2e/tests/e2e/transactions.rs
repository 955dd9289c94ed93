//! Producers with transactions, and what they hold back.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tokio::task::block_in_place;
use tutti_e2e::bed::{Bed, fix};
use tutti_e2e::eventually;
use tutti_e2e::viewer::Following;
use tutti_load::now_ms;

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn records_behind_an_open_transaction_make_the_map_stale_until_it_ends() {
    let bed = Bed::new(1).await.with("locations.stale_after_seconds", "600");
    let (ingest, [edge]) = bed.up([&[]]).await;
    let viewer = Following::start(&edge.stream()).await;
    let publisher = bed.publisher();
    publisher.send("before", Some(fix("before", now_ms()).as_bytes())).await.unwrap();
    eventually("it is shown", async || viewer.viewer().devices.contains_key("before")).await;
    let held_back = async || ingest.metric("tutti_ingest_held_back_records").await;
    let is_live = || viewer.viewer().statuses.last().is_some_and(|status| status == "live");
    eventually("the map is live", async || is_live()).await;

    let transactional: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bed.brokers())
        .set("transactional.id", &bed.topic)
        .set("transaction.timeout.ms", "600000")
        .create()
        .unwrap();
    block_in_place(|| transactional.init_transactions(LONG)).unwrap();
    let in_transaction = |id: &str| {
        transactional.begin_transaction().unwrap();
        let value = fix(id, now_ms());
        transactional.send(BaseRecord::to(&bed.topic).key(id).payload(&value)).unwrap();
        block_in_place(|| transactional.flush(LONG)).unwrap();
    };
    in_transaction("inside");
    publisher.send("behind", Some(fix("behind", now_ms()).as_bytes())).await.unwrap();
    publisher.flush(LONG).await.unwrap();
    eventually("what stands behind the transaction is counted", async || held_back().await == 2.0).await;
    assert_eq!(ingest.metric("tutti_ingest_lag_records").await, 2.0);
    eventually("viewers are told", async || !is_live()).await;
    let warnings = || ingest.log().lines().filter(|line| line.contains("holds records back")).count();
    assert_eq!(warnings(), 1, "{}", ingest.log());
    assert!(viewer.viewer().devices.keys().eq(["before"]), "nothing was read that may yet be aborted");

    block_in_place(|| transactional.commit_transaction(LONG)).unwrap();
    eventually("all are shown", async || viewer.viewer().devices.len() == 3).await;
    eventually("and the map is live", async || is_live()).await;
    eventually("nothing is held back", async || held_back().await == 0.0).await;

    // One that is aborted brings nothing, and holds nothing back any more.
    in_transaction("aborted");
    eventually("it is counted", async || held_back().await == 1.0).await;
    eventually("viewers are told", async || !is_live()).await;
    block_in_place(|| transactional.abort_transaction(LONG)).unwrap();
    eventually("the map is live again", async || is_live()).await;
    assert!(!viewer.viewer().devices.contains_key("aborted"));
    assert_eq!(warnings(), 2, "{}", ingest.log());
}
