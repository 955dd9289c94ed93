//! The metrics of ingest.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tutti_feed::{AppendMetrics, MailboxMetrics, RedisMetrics};
use tutti_kafka::PartitionMetrics;
use tutti_model::location::Decoded;
use tutti_service::{histogram, metric};

/// The label set of a metric per topic.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Topic {
    /// Name of the topic.
    pub topic: String,
}

/// The label set of rejected records.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RejectionLabel {
    /// Name of the topic.
    pub topic: String,
    /// The word for the kind of mistake, such as `not_json`.
    pub reason: &'static str,
}

/// The label set of values that are left out of fixes.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct FieldLabel {
    /// Name of the topic.
    pub topic: String,
    /// Name of the field in JSON.
    pub field: &'static str,
}

/// Counters of the optional values that are left out of one topic's fixes.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeftOut {
    pub(crate) heading: Counter,
    pub(crate) speed: Counter,
}

impl LeftOut {
    /// Counts what was left out of a fix.
    pub(crate) fn count(&self, decoded: &Decoded) {
        if decoded.heading_left_out {
            self.heading.inc();
        }
        if decoded.speed_left_out {
            self.speed.inc();
        }
    }
}

/// All metrics of ingest.
#[derive(Clone)]
pub struct Metrics {
    /// What the service observes of its Redis.
    pub redis: RedisMetrics,
    /// What appends to feeds count.
    pub append: AppendMetrics,
    /// What filing into mailboxes counts.
    pub mailboxes: MailboxMetrics,
    /// Records that this process brought to Redis.
    pub applied: Family<Topic, Counter>,
    /// Records that Redis already had.
    pub duplicates: Family<Topic, Counter>,
    /// Records that are too old to be shown.
    pub stale: Family<Topic, Counter>,
    /// Records that are not valid.
    pub rejected: Family<RejectionLabel, Counter>,
    /// Optional values that were left out of fixes.
    pub left_out: Family<FieldLabel, Counter>,
    /// Rejected records that could not be written to the `.rejected` topic.
    pub rejected_lost: Family<Topic, Counter>,
    /// Gaps in Kafka itself.
    pub gaps: Family<Topic, Counter>,
    /// Writes to Redis that failed and were tried again.
    pub append_errors: Family<Topic, Counter>,
    /// Partitions that are being read.
    pub partitions: Family<Topic, Gauge>,
    /// How far each partition is behind.
    pub partition_metrics: PartitionMetrics,
    /// Seconds from a record's Kafka timestamp to its time in the feed.
    pub delay: Histogram,
}

impl Metrics {
    /// Makes and registers all metrics.
    pub fn new(registry: &mut Registry) -> Self {
        Self {
            append: AppendMetrics::new(registry),
            redis: RedisMetrics::new(registry),
            mailboxes: MailboxMetrics::new(registry),
            applied: metric(registry, "ingest_applied_records", "Records that reached Redis"),
            duplicates: metric(
                registry,
                "ingest_duplicate_records",
                "Records that another delivery had brought to Redis already",
            ),
            stale: metric(registry, "ingest_stale_records", "Records that are too old to be shown"),
            rejected: metric(registry, "ingest_rejected_records", "Records that are not valid"),
            left_out: metric(
                registry,
                "ingest_left_out_values",
                "Optional values that were left out of fixes: not available, or out of range",
            ),
            rejected_lost: metric(
                registry,
                "ingest_rejected_lost_records",
                "Rejected records that could not be written to the rejected topic",
            ),
            gaps: metric(registry, "ingest_gaps", "Gaps in Kafka itself, such as after retention"),
            append_errors: metric(
                registry,
                "ingest_append_errors",
                "Writes to Redis that failed and were tried again",
            ),
            partitions: metric(registry, "ingest_partitions", "Partitions being read"),
            partition_metrics: PartitionMetrics {
                lag: metric(registry, "ingest_lag_records", "Records behind the end of the partition"),
                held_back: metric(
                    registry,
                    "ingest_held_back_records",
                    "Records behind a transaction that has been open for some seconds: they can be read when it ends",
                ),
            },
            delay: histogram(
                registry,
                "ingest_delay_seconds",
                "Time from a record's Kafka timestamp to its time in the feed",
                exponential_buckets(0.0005, 2.0, 18),
            ),
        }
    }

    /// Returns the counters of what is left out of a topic's fixes.
    pub(crate) fn left_out_of(&self, topic: &str) -> LeftOut {
        let counter =
            |field| self.left_out.get_or_create_owned(&FieldLabel { topic: topic.to_owned(), field });
        LeftOut { heading: counter("heading"), speed: counter("speed") }
    }
}
