//! Producers with transactions, and what they hold back.

use std::time::Duration;

use serde_json::Value;
use tokio::task::block_in_place;
use tokio::time::timeout;
use tutti_e2e::fixes::fix;
use tutti_e2e::inboxes::{Inboxes, token};
use tutti_e2e::testbed::Testbed;
use tutti_e2e::viewer::Following;
use tutti_e2e::{eventually, kafka, unique};
use tutti_kafka::ProducerRecord;
use tutti_kafka::tools::TransactionalProducer;
use tutti_load::now_ms;
use tutti_load::publisher::Publisher;
use tutti_load::sse::{Request, Source};

const LONG: Duration = Duration::from_secs(60);

/// Starts a producer whose records can be read once it commits them.
fn transactional(brokers: &str, id: &str) -> TransactionalProducer {
    block_in_place(|| TransactionalProducer::connect(brokers, id)).unwrap()
}

/// Begins a transaction with one record, and waits until Kafka has it.
fn begin(producer: &TransactionalProducer, topic: &str, partition: i32, key: &str, value: &str) {
    let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
    let partition = Some(partition);
    let record = ProducerRecord { topic, partition, key, value, ..ProducerRecord::default() };
    block_in_place(|| producer.begin(&record)).unwrap();
}

fn commit(producer: &TransactionalProducer) {
    block_in_place(|| producer.commit()).unwrap();
}

fn abort(producer: &TransactionalProducer) {
    block_in_place(|| producer.abort()).unwrap();
}

/// Reads a stream until its status is the wanted one. Returns the events that came before it, by name and data.
async fn until_status(source: &mut Source, is_wanted: impl Fn(&Value) -> bool) -> Vec<(String, String)> {
    let mut events = Vec::new();
    let reading = async {
        while let Some(event) = source.next().await.unwrap() {
            if event.event == "status" && is_wanted(&serde_json::from_str(&event.data).unwrap()) {
                return;
            }
            events.push((event.event, event.data));
        }
        panic!("the stream ended");
    };
    timeout(Duration::from_secs(90), reading).await.expect("the status comes");
    events
}

fn is_live(status: &Value) -> bool {
    status["state"] == "live"
}

fn lags_by_one(status: &Value) -> bool {
    status["state"] == "stale" && status["lag"] == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn records_behind_an_open_transaction_make_the_map_stale_until_it_ends() {
    let testbed = Testbed::new(1).await.with("locations.stale_after_seconds", "600");
    let (ingest, [edge]) = testbed.up([&[]]).await;
    let viewer = Following::start(&edge.stream()).await;
    let publisher = testbed.publisher();
    publisher.send("before", Some(fix("before", now_ms()).as_bytes())).await.unwrap();
    eventually("it is shown", async || viewer.viewer().devices.contains_key("before")).await;
    let held_back = async || ingest.metric_if_set("tutti_ingest_held_back_records").await;
    let is_live = || viewer.viewer().statuses.last().is_some_and(|status| status == "live");
    eventually("the map is live", async || is_live()).await;

    let transaction = transactional(testbed.brokers(), &testbed.topic);
    let in_transaction = |id: &str| begin(&transaction, &testbed.topic, 0, id, &fix(id, now_ms()));
    in_transaction("inside");
    publisher.send("behind", Some(fix("behind", now_ms()).as_bytes())).await.unwrap();
    publisher.flush(LONG).await.unwrap();
    eventually("what stands behind the transaction is counted", async || held_back().await == Some(2.0))
        .await;
    assert_eq!(ingest.metric("tutti_ingest_lag_records").await, 2.0);
    eventually("viewers are told", async || !is_live()).await;
    let warnings = || ingest.log().lines().filter(|line| line.contains("holds records back")).count();
    assert_eq!(warnings(), 1, "{}", ingest.log());
    assert!(viewer.viewer().devices.keys().eq(["before"]), "nothing was read that may yet be aborted");

    let mut told = Source::open(&Request { url: edge.stream(), ..Request::default() }).await.unwrap();
    until_status(&mut told, |status| status["state"] == "stale" && status["lag"] == 2).await;

    commit(&transaction);
    eventually("all are shown", async || viewer.viewer().devices.len() == 3).await;
    eventually("and the map is live", async || is_live()).await;
    eventually("nothing is held back", async || held_back().await == Some(0.0)).await;

    // A transaction that is aborted brings nothing, and holds nothing back any more.
    in_transaction("aborted");
    eventually("it is counted", async || held_back().await == Some(1.0)).await;
    eventually("viewers are told", async || !is_live()).await;
    abort(&transaction);
    eventually("the map is live again", async || is_live()).await;
    assert!(!viewer.viewer().devices.contains_key("aborted"));
    assert_eq!(warnings(), 2, "{}", ingest.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_of_a_topic_hear_that_one_partition_stands_while_another_goes_on() {
    let (testbed, topic) = (Testbed::on(kafka::shared(), 1).await, unique("events"));
    kafka::shared().create_topic(&topic, 2).await.unwrap();
    let settings = [
        ("kafka.brokers", testbed.brokers().to_owned()),
        ("ingest.routes", "e".to_owned()),
        ("routes.e.kind", "events".to_owned()),
        ("routes.e.topic", topic.clone()),
        ("routes.e.group", format!("{topic}-group")),
    ];
    let ingest = testbed.service("tutti-ingest", &settings);
    let edge = testbed.edge(&[("topics.names", &topic), ("topics.public", &topic)]);
    ingest.wait_ready().await;
    let url = format!("{}/v1/topics/{topic}/stream", edge.url);
    let publisher = Publisher::new(testbed.brokers(), &topic).unwrap();
    let transaction = transactional(testbed.brokers(), &topic);
    let mut source = Source::open(&Request { url, ..Request::default() }).await.unwrap();
    until_status(&mut source, is_live).await;

    begin(&transaction, &topic, 0, "a", "inside");
    until_status(&mut source, lags_by_one).await;
    // Some keys go to the other partition, which is in no transaction.
    let goes_on = async {
        loop {
            let event = source.next().await.unwrap().expect("the stream goes on");
            if event.data == "beside" {
                return;
            }
            assert!(event.event != "status" || !event.data.contains("live"), "{}", event.data);
        }
    };
    for n in 0..20 {
        publisher.send(&format!("key-{n}"), Some(b"beside")).await.unwrap();
    }
    timeout(Duration::from_secs(90), goes_on).await.expect("the other partition goes on");

    commit(&transaction);
    let mut heard = until_status(&mut source, is_live).await;
    while !heard.iter().any(|(_, data)| data == "inside") {
        let event = source.next().await.unwrap().expect("the stream goes on");
        heard.push((event.event, event.data));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_hear_that_notifications_wait_behind_an_open_transaction() {
    let inboxes = Inboxes::start(kafka::shared(), 1).await;
    let (ingest, edge) = (inboxes.ingest(), inboxes.edge(&[]).await);
    ingest.wait_ready().await;
    let url = format!("{}/v1/inbox/stream", edge.url);
    let request = Request { url, token: Some(token("7")), ..Request::default() };
    let mut source = Source::open(&request).await.unwrap();
    until_status(&mut source, is_live).await;

    let transaction = transactional(inboxes.testbed.brokers(), &inboxes.topic);
    begin(&transaction, &inboxes.topic, 0, "7", r#"{"to":{"users":["7"]},"title":"Inside"}"#);
    until_status(&mut source, lags_by_one).await;
    abort(&transaction);
    let heard = until_status(&mut source, is_live).await;
    assert!(!heard.iter().any(|(name, _)| name == "notification"), "{heard:?}");
}
