//! Membership in a consumer group: what librdkafka calls back into.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::bindings::rd_kafka_resp_err_t as RespErr;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::statistics::{Partition, Statistics};
use rdkafka::topic_partition_list::{TopicPartitionList, TopicPartitionListElem};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::held_back::HeldBack;
use crate::metrics::{PartitionLabel, PartitionMetrics};

/// A partition that the group has assigned to this member.
#[derive(Debug)]
pub struct AssignedPartition {
    /// Number of the partition.
    pub partition: i32,
    /// Cancelled when the group revokes the partition.
    pub revoked: CancellationToken,
    pub(crate) generation: u64,
}

/// The partitions that a member holds. librdkafka calls it on the thread that polls the consumer.
pub(crate) struct Membership {
    held: Mutex<HashMap<i32, HeldPartition>>,
    /// Assignments so far. It tells one assignment of a partition from the next.
    assignments: AtomicU64,
    /// Holds no more than the rebalances that the main loop, which polls them, has yet to answer.
    assigned: mpsc::UnboundedSender<Vec<AssignedPartition>>,
    metrics: PartitionMetrics,
}

/// A partition between its assignment and its revocation.
pub(crate) struct HeldPartition {
    generation: u64,
    revoked: CancellationToken,
    pub(crate) is_fetching: bool,
    pub(crate) held_back: HeldBack,
}

impl Membership {
    pub(crate) fn new(
        assigned: mpsc::UnboundedSender<Vec<AssignedPartition>>,
        metrics: PartitionMetrics,
    ) -> Self {
        Self { held: Mutex::default(), assignments: AtomicU64::new(0), assigned, metrics }
    }

    pub(crate) fn held(&self) -> MutexGuard<'_, HashMap<i32, HeldPartition>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn assign(&self, held: &mut HashMap<i32, HeldPartition>, partition: i32) -> AssignedPartition {
        let revoked = CancellationToken::new();
        let generation = self.assignments.fetch_add(1, Ordering::Relaxed);
        let new = HeldPartition {
            generation,
            revoked: revoked.clone(),
            is_fetching: false,
            held_back: HeldBack::default(),
        };
        held.insert(partition, new);
        AssignedPartition { partition, revoked, generation }
    }

    /// Removes the partitions of `list`, cancels their tokens, and returns those that were fetched.
    fn revoke(&self, list: &TopicPartitionList) -> TopicPartitionList {
        let mut held = self.held();
        let mut fetched = TopicPartitionList::new();
        for element in list.elements() {
            let Some(was) = held.remove(&element.partition()) else { continue };
            let (topic, partition) = (element.topic(), element.partition());
            self.metrics.remove(&PartitionLabel { topic: topic.to_owned(), partition });
            was.revoked.cancel();
            if was.is_fetching {
                fetched.add_partition(topic, partition);
            }
        }
        fetched
    }

    /// Sets the gauges of a fetched partition, and logs when a transaction begins or ceases to hold records back.
    fn observe(&self, topic: &str, partition: i32, held: &mut HeldPartition, statistics: &Partition) {
        let label = PartitionLabel { topic: topic.to_owned(), partition };
        let has_changed = held.held_back.observe(statistics.ls_offset, statistics.hi_offset);
        let records = held.held_back.records();
        self.metrics.held_back.get_or_create(&label).set(records);
        // The lag behind the stored offset, not the committed one: librdkafka commits nothing while a partition goes
        // back to an earlier offset. librdkafka counts only to the last stable offset.
        if statistics.consumer_lag_stored >= 0 {
            let lag = statistics.consumer_lag_stored.saturating_add(records);
            self.metrics.lag.get_or_create(&label).set(lag);
        }
        if has_changed && records > 0 {
            warn!(
                topic,
                partition,
                offset = statistics.ls_offset,
                records,
                "An open transaction of a producer holds records back. Clients see their data as stale. Commit or \
                 abort it: kafka-transactions.sh find-hanging and abort."
            );
        } else if has_changed {
            info!(topic, partition, "The transaction that held records back has ended.");
        }
    }
}

impl HeldPartition {
    /// Returns whether this is the assignment that `assigned` came from, and not a later one of the same partition.
    pub(crate) fn is_of(&self, assigned: &AssignedPartition) -> bool {
        self.generation == assigned.generation
    }
}

impl ClientContext for Membership {
    fn stats(&self, statistics: Statistics) {
        let mut held = self.held();
        for (topic, of_topic) in statistics.topics {
            for (partition, of_partition) in of_topic.partitions {
                if let Some(held) = held.get_mut(&partition).filter(|held| held.is_fetching) {
                    self.observe(&topic, partition, held, &of_partition);
                }
            }
        }
    }
}

impl ConsumerContext for Membership {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<i32> = list.elements().iter().map(TopicPartitionListElem::partition).collect();
        let answered = if err == RespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            info!(?partitions, "The consumer group assigned partitions.");
            let mut held = self.held();
            let assigned = partitions.into_iter().map(|p| self.assign(&mut held, p)).collect();
            // The receiver is gone only while the service stops.
            let _ = self.assigned.send(assigned);
            consumer.incremental_assign(&TopicPartitionList::new())
        } else {
            info!(?partitions, "The consumer group revoked partitions.");
            consumer.incremental_unassign(&self.revoke(list))
        };
        if let Err(error) = answered {
            warn!(%error, "Answering a rebalance of the consumer group failed.");
        }
    }
}
