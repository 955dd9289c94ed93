//! The one file that names the Kafka driver.
//!
//! A partition that the group gives us is not fetched from the group's committed offset. The
//! rebalance is acknowledged with an empty assignment; the partition's task looks up where Redis
//! stands, and then assigns the partition at exactly that offset.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use rdkafka::bindings::rd_kafka_resp_err_t as RespErr;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _};
use rdkafka::consumer::stream_consumer::StreamPartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, MessageStream, StreamConsumer};
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub(crate) use rdkafka::error::KafkaError;

use crate::batch::{Headers, Raw};
use crate::config::{Config, Kind, Route};
use crate::metrics::{Metrics, Partition as PartitionLabel};

/// How long a question to a broker may take.
const ASK: Duration = Duration::from_secs(5);

/// A partition that the group gave us.
pub(crate) struct Granted {
    pub(crate) partition: i32,
    generation: u64,
    /// Cancelled when the group takes it back.
    pub(crate) revoked: CancellationToken,
}

/// A member of a consumer group.
pub(crate) struct Group {
    consumer: Arc<StreamConsumer<GroupContext>>,
    topic: String,
}

/// What the driver calls back into.
struct GroupContext {
    held: Mutex<HashMap<i32, Held>>,
    /// Grants so far: tells one grant of a partition from the next.
    grants: AtomicU64,
    /// Holds no more than the rebalances that the main loop, which polls them, has yet to answer.
    granted: mpsc::UnboundedSender<Vec<Granted>>,
    metrics: Metrics,
}

struct Held {
    generation: u64,
    revoked: CancellationToken,
    fetching: bool,
    stable: Stable,
}

/// How far a partition can be read. An open transaction holds back all records from its first on, also those of
/// others, for ingest reads only what is committed.
#[derive(Default)]
struct Stable {
    /// Where the oldest open transaction began, if one was open at the last look.
    open_since: Option<i64>,
    /// Records from there on, if the same transaction was open at the last two looks: one look may fall on a
    /// transaction that ends in a moment.
    held_back: i64,
}

impl Stable {
    /// How many records are held back from one who has read up to this position. What was read from beyond where the
    /// transaction began shows that it has ended since the last look.
    fn held_back_from(&self, position: i64) -> u64 {
        let stands = self.open_since.is_some_and(|since| position <= since);
        if stands { self.held_back.max(0) as u64 } else { 0 }
    }

    /// Takes what the driver knows of a partition's two ends, as of its newest answer; whether records are held back
    /// now, and were not before, or the other way round.
    fn look(&mut self, stable_end: i64, end: i64) -> bool {
        let before = self.held_back > 0;
        let open = (stable_end >= 0 && stable_end < end).then_some(stable_end);
        let stands = open.is_some() && open == self.open_since;
        self.held_back = if stands { end - stable_end } else { 0 };
        self.open_since = open;
        before != (self.held_back > 0)
    }
}

impl GroupContext {
    fn held(&self) -> MutexGuard<'_, HashMap<i32, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grant(&self, held: &mut HashMap<i32, Held>, partition: i32) -> Granted {
        let revoked = CancellationToken::new();
        let generation = self.grants.fetch_add(1, Ordering::Relaxed);
        let new = Held { generation, revoked: revoked.clone(), fetching: false, stable: Stable::default() };
        held.insert(partition, new);
        Granted { partition, generation, revoked }
    }
}

impl ClientContext for GroupContext {
    fn stats(&self, statistics: Statistics) {
        let mut held = self.held();
        for (topic, t) in statistics.topics {
            for (partition, p) in t.partitions {
                let Some(held) = held.get_mut(&partition).filter(|h| h.fetching) else { continue };
                let label = PartitionLabel { topic: topic.clone(), partition };
                let changed = held.stable.look(p.ls_offset, p.hi_offset);
                let held_back = held.stable.held_back;
                self.metrics.held_back.get_or_create(&label).set(held_back);
                // Of the offsets stored, not committed: librdkafka commits nothing while we go back. It counts only
                // to the offset that can be read.
                if p.consumer_lag_stored >= 0 {
                    let lag = p.consumer_lag_stored.saturating_add(held_back);
                    self.metrics.lag.get_or_create(&label).set(lag);
                }
                if changed && held_back > 0 {
                    warn!(
                        topic,
                        partition,
                        offset = p.ls_offset,
                        records = held_back,
                        "a transaction of a producer is open and holds records back; clients are told that news is \
                         stale; commit or abort it: kafka-transactions.sh find-hanging and abort"
                    );
                } else if changed {
                    info!(topic, partition, "the transaction that held records back has ended");
                }
            }
        }
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<i32> = list.elements().iter().map(TopicPartitionListElem::partition).collect();
        let mut held = self.held();
        let answered = if err == RespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            info!(?partitions, "partitions granted");
            let granted = partitions.into_iter().map(|p| self.grant(&mut held, p)).collect();
            // Nobody listens only when we are stopping.
            let _ = self.granted.send(granted);
            consumer.incremental_assign(&TopicPartitionList::new())
        } else {
            info!(?partitions, "partitions taken back");
            let mut fetched = TopicPartitionList::new();
            for element in list.elements() {
                if let Some(was) = held.remove(&element.partition()) {
                    let label =
                        PartitionLabel { topic: element.topic().to_owned(), partition: element.partition() };
                    self.metrics.lag.remove(&label);
                    self.metrics.held_back.remove(&label);
                    was.revoked.cancel();
                    if was.fetching {
                        fetched.add_partition(element.topic(), element.partition());
                    }
                }
            }
            consumer.incremental_unassign(&fetched)
        };
        if let Err(error) = answered {
            warn!(%error, "answering a rebalance");
        }
    }
}

impl Group {
    /// Joins the group of a route. The partitions it gets come from the receiver; they come only
    /// while [`Group::poll`] runs.
    ///
    /// # Errors
    /// If the driver refuses its configuration.
    pub(crate) fn join(
        config: &Config,
        route: &Route,
        metrics: &Metrics,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Vec<Granted>>), KafkaError> {
        let (granted, receiver) = mpsc::unbounded_channel();
        let context = GroupContext {
            held: Mutex::default(),
            grants: AtomicU64::new(0),
            granted,
            metrics: metrics.clone(),
        };
        let (fetch_min_bytes, fetch_wait_max_ms) = match route.kind {
            // Each record that is fetched by itself costs the driver, Redis and each edge as much as many do.
            Kind::Notifications { .. } => ("65536", "20"),
            // A partition whose queue was full is fetched from again only when the broker has answered for the
            // others, and if these are quiet it takes its time.
            Kind::Locations { .. } | Kind::Events { .. } => ("1", "100"),
        };
        let client = client_config(
            config,
            &[
                ("group.id", route.group.as_str()),
                ("partition.assignment.strategy", "cooperative-sticky"),
                ("session.timeout.ms", "10000"),
                ("heartbeat.interval.ms", "1000"),
                ("enable.auto.commit", "true"),
                ("enable.auto.offset.store", "false"),
                // Never skip in silence: an offset out of range is an error, and then a gap.
                ("auto.offset.reset", "error"),
                ("fetch.queue.backoff.ms", "5"),
                ("queued.min.messages", "50000"),
                ("queued.max.messages.kbytes", "4096"),
                ("fetch.min.bytes", fetch_min_bytes),
                ("fetch.wait.max.ms", fetch_wait_max_ms),
                ("topic.metadata.refresh.interval.ms", "10000"),
                ("statistics.interval.ms", "5000"),
                // It would time each record that is taken out of a queue, for brokers that seldom ask.
                ("enable.metrics.push", "false"),
            ],
        );
        let consumer = StreamConsumer::from_config_and_context(&client, context)?;
        consumer.subscribe(&[&route.topic])?;
        Ok((Self { consumer: Arc::new(consumer), topic: route.topic.clone() }, receiver))
    }

    /// Polls for rebalances and errors; never completes. Records come by their partition's queue.
    pub(crate) async fn poll(&self) {
        let mut unknown_topic_said = false;
        loop {
            match self.consumer.recv().await {
                // Fetched before its queue was split off, which the order of calls excludes.
                Ok(message) => {
                    warn!(partition = message.partition(), offset = message.offset(), "a stray record");
                }
                Err(error) => {
                    let unknown = error
                        .rdkafka_error_code()
                        .is_some_and(|c| c == rdkafka::types::RDKafkaErrorCode::UnknownTopicOrPartition);
                    if unknown && !std::mem::replace(&mut unknown_topic_said, true) {
                        warn!(topic = self.topic, "the topic does not exist yet; waiting for it");
                    } else if !unknown {
                        debug!(%error, "Kafka");
                    }
                    // An error that repeats at once must not become a busy loop.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Ready to fetch a partition; call when no other task fetches it any more.
    ///
    /// # Errors
    /// If the driver does not know the partition.
    pub(crate) fn queue(&self, granted: &Granted) -> Result<Queue, KafkaError> {
        let queue = self.consumer.split_partition_queue(&self.topic, granted.partition).ok_or_else(|| {
            KafkaError::Subscription(format!("no queue for partition {}", granted.partition))
        })?;
        Ok(Queue(queue))
    }

    /// Starts fetching a partition at an offset, unless it was taken back meanwhile.
    ///
    /// # Errors
    /// If the driver refuses.
    pub(crate) fn start_fetching(&self, granted: &Granted, offset: i64) -> Result<(), KafkaError> {
        let mut held = self.consumer.context().held();
        let Some(ours) = held.get_mut(&granted.partition).filter(|h| h.generation == granted.generation)
        else {
            return Ok(());
        };
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, granted.partition, Offset::Offset(offset))?;
        self.consumer.incremental_assign(&list)?;
        ours.fetching = true;
        ours.stable = Stable::default();
        Ok(())
    }

    /// Stops fetching a partition, which stays ours.
    ///
    /// # Errors
    /// If the driver refuses.
    pub(crate) fn stop_fetching(&self, granted: &Granted) -> Result<(), KafkaError> {
        let mut held = self.consumer.context().held();
        let Some(ours) = held.get_mut(&granted.partition).filter(|h| h.generation == granted.generation)
        else {
            return Ok(());
        };
        if std::mem::replace(&mut ours.fetching, false) {
            let mut list = TopicPartitionList::new();
            list.add_partition(&self.topic, granted.partition);
            self.consumer.incremental_unassign(&list)?;
        }
        Ok(())
    }

    /// How many records an open transaction holds back from one who has read a partition up to `position`. Known some
    /// seconds after the transaction began.
    pub(crate) fn held_back(&self, granted: &Granted, position: i64) -> u64 {
        let held = self.consumer.context().held();
        held.get(&granted.partition).map_or(0, |held| held.stable.held_back_from(position))
    }

    /// Notes that all before `offset` is done; the driver commits it in time. Only monitoring
    /// reads it.
    pub(crate) fn store_offset(&self, partition: i32, offset: i64) {
        // The driver adds one. It fails when the partition was just taken back, which is fine.
        let _ = self.consumer.store_offset(&self.topic, partition, offset - 1);
    }

    /// The cluster's id.
    pub(crate) async fn cluster_id(&self) -> Option<String> {
        let consumer = self.consumer.clone();
        let asked = tokio::task::spawn_blocking(move || consumer.client().fetch_cluster_id(ASK));
        asked.await.ok().flatten()
    }

    /// The first offset that a partition still has, and the one after its last.
    ///
    /// # Errors
    /// If Kafka does not answer.
    pub(crate) async fn watermarks(&self, partition: i32) -> Result<(i64, i64), KafkaError> {
        let (consumer, topic) = (self.consumer.clone(), self.topic.clone());
        blocking(move || consumer.fetch_watermarks(&topic, partition, ASK)).await
    }

    /// The first offset at or after a time; the partition's end if there is none.
    ///
    /// # Errors
    /// If Kafka does not answer.
    pub(crate) async fn offset_at(&self, partition: i32, time_ms: i64, end: i64) -> Result<i64, KafkaError> {
        let (consumer, topic) = (self.consumer.clone(), self.topic.clone());
        blocking(move || {
            let mut times = TopicPartitionList::new();
            times.add_partition_offset(&topic, partition, Offset::Offset(time_ms))?;
            let found = consumer.offsets_for_times(times, ASK)?;
            let Some(found) = found.find_partition(&topic, partition) else { return Ok(end) };
            found.error()?;
            Ok(match found.offset() {
                Offset::Offset(offset) => offset,
                // Nothing is as new as that.
                _ => end,
            })
        })
        .await
    }
}

/// What is wrong with the configuration; the driver's own text would tell the value, which may be
/// a secret.
pub(crate) fn refused(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, why, key, _) => format!("kafka.properties.{key}: {why}"),
        other => format!("kafka.properties: {other}"),
    }
}

async fn blocking<T: Send + 'static>(
    ask: impl FnOnce() -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, KafkaError> {
    tokio::task::spawn_blocking(ask).await.unwrap_or(Err(KafkaError::Canceled))
}

/// The records of one partition. Not reading it is the backpressure.
pub(crate) struct Queue(StreamPartitionQueue<GroupContext>);

impl Queue {
    /// Its records, one after the other.
    pub(crate) fn records(&self) -> Records<'_> {
        Records(self.0.stream())
    }
}

/// What a queue brings; making it costs as much as some of them.
pub(crate) struct Records<'a>(MessageStream<'a, GroupContext>);

impl<'a> Records<'a> {
    /// The next record.
    ///
    /// # Errors
    /// What the driver reports of this partition.
    pub(crate) async fn next(&mut self) -> Result<Message<'a>, KafkaError> {
        self.0.next().await.expect("the driver's streams have no end").map(Message)
    }
}

/// A record in the driver's memory.
#[derive(Debug)]
pub(crate) struct Message<'a>(BorrowedMessage<'a>);

impl Message<'_> {
    pub(crate) fn raw(&self) -> Raw<'_> {
        Raw {
            offset: self.0.offset(),
            key: self.0.key(),
            value: self.0.payload(),
            headers: self,
            timestamp_ms: self.0.timestamp().to_millis(),
        }
    }
}

impl Headers for Message<'_> {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.0.headers()?.iter().find(|header| header.key.eq_ignore_ascii_case(name))?.value
    }
}

/// Settings of consumers, of which a producer would warn.
const CONSUMERS: [&str; 5] = ["fetch.", "queued.", "session.", "heartbeat.", "max.poll."];

/// Writes to Kafka. The driver's part is made when it is first needed: it has threads of its own, which are
/// never quite idle; and anew when it failed for good.
#[derive(Clone)]
pub(crate) struct Producer {
    config: Arc<ClientConfig>,
    driver: Arc<Mutex<Option<FutureProducer>>>,
}

impl Producer {
    /// # Errors
    /// If the driver refuses its configuration.
    pub(crate) fn new(config: &Config, delivery_timeout: Duration) -> Result<Self, KafkaError> {
        let timeout = delivery_timeout.as_millis().to_string();
        let settings = [
            ("enable.idempotence", "true"),
            ("message.timeout.ms", timeout.as_str()),
            ("queue.buffering.max.kbytes", "65536"),
        ];
        let mut client = client_config(config, &settings);
        for key in config.kafka.properties.keys().filter(|key| CONSUMERS.iter().any(|c| key.starts_with(c))) {
            client.remove(key);
        }
        client.create_native_config()?;
        Ok(Self { config: Arc::new(client), driver: Arc::default() })
    }

    fn driver(&self) -> Result<FutureProducer, KafkaError> {
        let mut held = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(driver) = held.as_ref().filter(|driver| driver.client().fatal_error().is_none()) {
            return Ok(driver.clone());
        }
        let driver: FutureProducer = self.config.create()?;
        if let Some(failed) = held.replace(driver.clone()) {
            // Who is the last to hold it waits for its thread.
            tokio::task::spawn_blocking(move || drop(failed));
        }
        Ok(driver)
    }

    /// Writes one record and waits for Kafka's acknowledgement, for as long as the producer's
    /// delivery timeout at most.
    ///
    /// # Errors
    /// If it is not acknowledged.
    pub(crate) async fn send(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, String)],
    ) -> Result<(), KafkaError> {
        let mut list = OwnedHeaders::new_with_capacity(headers.len());
        for (key, value) in headers {
            list = list.insert(Header { key, value: Some(value) });
        }
        let record: FutureRecord<'_, [u8], [u8]> = FutureRecord {
            topic,
            partition: None,
            payload: value,
            key,
            timestamp: None,
            headers: Some(list),
        };
        let driver = self.driver()?;
        let sent = driver.send(record, Duration::ZERO).await.map(drop).map_err(|(error, _)| error);
        if driver.client().fatal_error().is_some() {
            // Who is the last to hold it waits for its thread.
            tokio::task::spawn_blocking(move || drop(driver));
        }
        sent
    }
}

fn client_config(config: &Config, settings: &[(&str, &str)]) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &config.kafka.brokers).set("client.id", "tutti-ingest");
    for (key, value) in settings {
        client.set(*key, *value);
    }
    for (key, value) in &config.kafka.properties {
        client.set(key, value);
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_held_back_while_the_stable_end_stands_before_the_end() {
        let mut stable = Stable::default();
        assert!(!stable.look(-1001, -1001), "nothing was fetched yet");
        assert!(!stable.look(10, 15), "it may be a transaction that ends in a moment");
        assert!(stable.look(10, 20));
        assert_eq!(stable.held_back, 10);
        assert_eq!([9, 10].map(|position| stable.held_back_from(position)), [10, 10]);
        assert_eq!(stable.held_back_from(11), 0, "the transaction has ended");
        assert!(!stable.look(10, 21), "it was so before");
        assert_eq!(stable.held_back, 11);
        assert!(stable.look(12, 21), "another transaction");
        assert_eq!(stable.held_back, 0);
        assert!(!stable.look(21, 21));
        assert!(!stable.look(21, 21));
        assert!(!stable.look(21, 22), "it began after the last look");
        assert_eq!(stable.held_back, 0);
        assert!(stable.look(21, 22));
    }
}
