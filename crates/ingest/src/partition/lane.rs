//! What a partition's task works with.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tutti_feed::{Client, Error as FeedError};
use tutti_kafka::{AssignedPartition, Consumer, Error as KafkaError};

use crate::config::Route;
use crate::metrics::{Metrics, Topic};
use crate::rejected::Rejected;

/// What the partitions of one route share.
pub(crate) struct RouteContext {
    /// Id of the Kafka cluster. Partitions of one name in two clusters are two sources.
    pub(crate) cluster: String,
    pub(crate) consumer: Arc<Consumer>,
    pub(crate) redis: Client,
    pub(crate) route: Route,
    pub(crate) metrics: Metrics,
    pub(crate) rejected: Rejected,
    /// When the route began to run. Flushes are aligned to it.
    pub(crate) started_at: Instant,
}

/// One partition while it is assigned to this member of the group.
pub(crate) struct Partition<D, S> {
    pub(super) context: Arc<RouteContext>,
    pub(super) assigned: AssignedPartition,
    /// The partition's name in Redis.
    pub(super) source: String,
    pub(super) decoder: D,
    pub(super) sink: S,
    /// How far back a partition begins that Redis does not know, if it begins at the age of the log.
    pub(super) lookback: Duration,
    /// The label of metrics.
    pub(super) topic: Topic,
}

/// Why a partition starts again from the position that Redis has.
#[derive(Debug, thiserror::Error)]
pub(super) enum PartitionError {
    #[error(transparent)]
    Feed(#[from] FeedError),
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
}

impl RouteContext {
    /// Returns a partition's name in Redis.
    pub(crate) fn source(&self, partition: i32) -> String {
        format!("{}/{}/{partition}", self.cluster, self.route.topic)
    }

    /// Returns the next time to store a batch that began at `from`. All partitions of a route store at the same moments:
    /// calls that reach Redis together cost less.
    pub(super) fn next_flush(&self, linger: Duration, from: Instant) -> Instant {
        let over = (from - self.started_at).as_micros() % linger.as_micros();
        from + linger - Duration::from_micros(over as u64)
    }
}

impl<D, S> Partition<D, S> {
    pub(crate) fn new(
        context: Arc<RouteContext>,
        assigned: AssignedPartition,
        decoder: D,
        sink: S,
        lookback: Duration,
    ) -> Self {
        let topic = Topic { topic: context.route.topic.clone() };
        Self { source: context.source(assigned.partition), context, assigned, decoder, sink, lookback, topic }
    }
}
