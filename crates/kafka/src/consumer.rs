//! A member of a consumer group, which fetches each partition from an offset of the caller's choice.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::error::{ConfigError, Error};
use crate::group::{AssignedPartition, Membership};
use crate::held_back::HeldBack;
use crate::metrics::PartitionMetrics;
use crate::records::PartitionQueue;
use crate::settings::ClientSettings;

/// How long a broker may take to answer a question about a partition or the cluster.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after an error. An error that repeats at once must not become a busy loop.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// What tells one consumer from another.
#[derive(Clone, Copy, Debug)]
pub struct ConsumerOptions<'a> {
    /// Name under which brokers log the client and apply quotas to it.
    pub client_id: &'a str,
    /// The topic to subscribe to.
    pub topic: &'a str,
    /// The consumer group.
    pub group: &'a str,
    /// Bytes that a broker collects before it answers a fetch, unless `fetch_wait_max` passes first.
    pub fetch_min_bytes: u32,
    /// Time that a broker may take to collect them.
    pub fetch_wait_max: Duration,
}

/// A member of a consumer group that is subscribed to one topic.
pub struct Consumer {
    inner: Arc<StreamConsumer<Membership>>,
    topic: String,
}

impl Consumer {
    /// Joins a consumer group. The partitions that it assigns come from the receiver, and only while
    /// [`Consumer::poll`] runs.
    ///
    /// # Errors
    /// If librdkafka refuses the configuration.
    pub fn join(
        settings: &ClientSettings,
        options: &ConsumerOptions<'_>,
        metrics: PartitionMetrics,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Vec<AssignedPartition>>), ConfigError> {
        let (assigned, receiver) = mpsc::unbounded_channel();
        let client = settings.client_config(
            options.client_id,
            &[
                ("group.id", options.group),
                ("partition.assignment.strategy", "cooperative-sticky"),
                ("session.timeout.ms", "10000"),
                ("heartbeat.interval.ms", "1000"),
                ("enable.auto.commit", "true"),
                ("enable.auto.offset.store", "false"),
                // An offset out of range is an error, and then a gap. It is never skipped in silence.
                ("auto.offset.reset", "error"),
                ("fetch.queue.backoff.ms", "5"),
                ("queued.min.messages", "50000"),
                ("queued.max.messages.kbytes", "4096"),
                ("fetch.min.bytes", &options.fetch_min_bytes.to_string()),
                ("fetch.wait.max.ms", &options.fetch_wait_max.as_millis().to_string()),
                ("topic.metadata.refresh.interval.ms", "10000"),
                ("statistics.interval.ms", "5000"),
                // It would time each record that is taken out of a queue, for brokers that seldom ask.
                ("enable.metrics.push", "false"),
            ],
        );
        let inner = StreamConsumer::from_config_and_context(&client, Membership::new(assigned, metrics))?;
        inner.subscribe(&[options.topic])?;
        Ok((Self { inner: Arc::new(inner), topic: options.topic.to_owned() }, receiver))
    }

    /// Polls for rebalances and errors, and never returns. Records come by the queue of their partition.
    pub async fn poll(&self) {
        let mut was_unknown_logged = false;
        loop {
            let error = match self.inner.recv().await.map_err(Error::from) {
                Ok(record) => {
                    // The order of calls excludes it: a partition's queue is split off before it is fetched.
                    let record = crate::records::ConsumerRecord(record);
                    warn!(
                        topic = self.topic,
                        offset = record.offset(),
                        "A record came outside the queue of its partition."
                    );
                    continue;
                }
                Err(error) => error,
            };
            if !error.is_unknown_topic() {
                debug!(topic = self.topic, %error, "Polling Kafka reported an error.");
            } else if !std::mem::replace(&mut was_unknown_logged, true) {
                warn!(topic = self.topic, "The topic does not exist yet. Reading begins once it is created.");
            }
            sleep(ERROR_PAUSE).await;
        }
    }

    /// Splits off the queue of a partition. Call this when no other task reads the partition any more: librdkafka
    /// wakes only one reader of a queue.
    ///
    /// # Errors
    /// If librdkafka does not know the partition.
    pub fn queue(&self, assigned: &AssignedPartition) -> Result<PartitionQueue, Error> {
        let queue = self.inner.split_partition_queue(&self.topic, assigned.partition);
        let missing = || KafkaError::Subscription(format!("no queue for partition {}", assigned.partition));
        Ok(PartitionQueue(queue.ok_or_else(missing)?))
    }

    /// Starts fetching a partition at an offset. Does nothing if the partition has been revoked meanwhile.
    ///
    /// # Errors
    /// If librdkafka refuses.
    pub fn start_fetching(&self, assigned: &AssignedPartition, offset: i64) -> Result<(), Error> {
        let mut held = self.inner.context().held();
        let Some(held) = held.get_mut(&assigned.partition).filter(|held| held.is_of(assigned)) else {
            return Ok(());
        };
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, assigned.partition, Offset::Offset(offset))?;
        self.inner.incremental_assign(&list)?;
        held.is_fetching = true;
        held.held_back = HeldBack::default();
        Ok(())
    }

    /// Stops fetching a partition, which stays assigned to this member.
    ///
    /// # Errors
    /// If librdkafka refuses.
    pub fn stop_fetching(&self, assigned: &AssignedPartition) -> Result<(), Error> {
        let mut held = self.inner.context().held();
        let Some(held) = held.get_mut(&assigned.partition).filter(|held| held.is_of(assigned)) else {
            return Ok(());
        };
        if std::mem::replace(&mut held.is_fetching, false) {
            let mut list = TopicPartitionList::new();
            list.add_partition(&self.topic, assigned.partition);
            self.inner.incremental_unassign(&list)?;
        }
        Ok(())
    }

    /// Returns how many records an open transaction holds back from a reader that has reached `position`. It is known
    /// some seconds after the transaction began.
    pub fn held_back(&self, assigned: &AssignedPartition, position: i64) -> u64 {
        let held = self.inner.context().held();
        held.get(&assigned.partition).map_or(0, |held| held.held_back.behind(position))
    }

    /// Notes that all records before `offset` are done. librdkafka commits this within seconds. Only monitoring reads
    /// it.
    pub fn store_offset(&self, partition: i32, offset: i64) {
        // librdkafka adds one. The call fails if the partition has just been revoked, which does no harm.
        let _ = self.inner.store_offset(&self.topic, partition, offset - 1);
    }

    /// Returns the id of the Kafka cluster, or `None` if no broker answers.
    pub async fn cluster_id(&self) -> Option<String> {
        let consumer = self.inner.clone();
        let asked = spawn_blocking(move || consumer.client().fetch_cluster_id(ANSWER_TIMEOUT));
        asked.await.ok().flatten()
    }

    /// Returns the first offset that a partition still has, and the one after its last.
    ///
    /// # Errors
    /// If Kafka does not answer.
    pub async fn watermarks(&self, partition: i32) -> Result<(i64, i64), Error> {
        let (consumer, topic) = (self.inner.clone(), self.topic.clone());
        blocking(move || consumer.fetch_watermarks(&topic, partition, ANSWER_TIMEOUT)).await
    }

    /// Returns the first offset at or after a time in milliseconds since 1970, or `end` if no record is as new.
    ///
    /// # Errors
    /// If Kafka does not answer.
    pub async fn offset_at(&self, partition: i32, time_ms: i64, end: i64) -> Result<i64, Error> {
        let (consumer, topic) = (self.inner.clone(), self.topic.clone());
        blocking(move || {
            let mut times = TopicPartitionList::new();
            times.add_partition_offset(&topic, partition, Offset::Offset(time_ms))?;
            let found = consumer.offsets_for_times(times, ANSWER_TIMEOUT)?;
            let Some(found) = found.find_partition(&topic, partition) else { return Ok(end) };
            found.error()?;
            Ok(match found.offset() {
                Offset::Offset(offset) => offset,
                _ => end,
            })
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    ask: impl FnOnce() -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, Error> {
    Ok(spawn_blocking(ask).await.unwrap_or(Err(KafkaError::Canceled))?)
}
