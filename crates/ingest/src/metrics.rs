//! What ingest counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tutti_feed::{AppendMetrics, MailboxMetrics, RedisMetrics};
use tutti_model::location::Decoded;
use tutti_service::{histogram, metric};

/// Which topic.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Topic {
    /// Its name.
    pub topic: String,
}

/// Which topic, and why.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RejectionLabel {
    /// The topic's name.
    pub topic: String,
    /// See `Invalid::reason`.
    pub reason: &'static str,
}

/// Which topic, and which field of its values.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct FieldLabel {
    /// The topic's name.
    pub topic: String,
    /// The field's name in JSON.
    pub field: &'static str,
}

/// Counters of the optional values that are left out of a topic's fixes.
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

/// Which partition.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Partition {
    /// The topic's name.
    pub topic: String,
    /// Its number.
    pub partition: i32,
}

/// All counters of ingest.
#[derive(Clone)]
pub struct Metrics {
    /// What is known of the Redis that the service uses.
    pub redis: RedisMetrics,
    /// Of the feeds.
    pub append: AppendMetrics,
    /// Of the mailboxes.
    pub mailboxes: MailboxMetrics,
    /// Records that reached Redis by us.
    pub applied: Family<Topic, Counter>,
    /// Records that were in Redis already.
    pub duplicates: Family<Topic, Counter>,
    /// Records too old to count.
    pub stale: Family<Topic, Counter>,
    /// Records that are not valid.
    pub rejected: Family<RejectionLabel, Counter>,
    /// Optional values that were left out of fixes.
    pub left_out: Family<FieldLabel, Counter>,
    /// Rejected records that could not be written to the `.rejected` topic.
    pub rejected_lost: Family<Topic, Counter>,
    /// Holes in Kafka itself.
    pub gaps: Family<Topic, Counter>,
    /// Appends that failed and were tried again.
    pub append_errors: Family<Topic, Counter>,
    /// Partitions being read.
    pub partitions: Family<Topic, Gauge>,
    /// Records behind the end of the partition.
    pub lag: Family<Partition, Gauge>,
    /// Records that an open transaction holds back.
    pub held_back: Family<Partition, Gauge>,
    /// From a record's Kafka timestamp to its time in the feed.
    pub delay: Histogram,
}

impl Metrics {
    /// Makes and registers them.
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
            stale: metric(registry, "ingest_stale_records", "Records too old to count"),
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
            gaps: metric(registry, "ingest_gaps", "Holes in Kafka itself, as after retention"),
            append_errors: metric(
                registry,
                "ingest_append_errors",
                "Appends that failed and were tried again",
            ),
            partitions: metric(registry, "ingest_partitions", "Partitions being read"),
            lag: metric(registry, "ingest_lag_records", "Records behind the end of the partition"),
            held_back: metric(
                registry,
                "ingest_held_back_records",
                "Records behind a transaction that has been open for some seconds: they can be read when it ends",
            ),
            delay: histogram(
                registry,
                "ingest_delay_seconds",
                "From a record's Kafka timestamp to its time in the feed",
                exponential_buckets(0.0005, 2.0, 18),
            ),
        }
    }

    /// The counters of what is left out of a topic's fixes.
    pub(crate) fn left_out_of(&self, topic: &str) -> LeftOut {
        let counter =
            |field| self.left_out.get_or_create_owned(&FieldLabel { topic: topic.to_owned(), field });
        LeftOut { heading: counter("heading"), speed: counter("speed") }
    }
}
