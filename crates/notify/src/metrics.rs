//! What the notifications' service counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tutti_feed::RedisMetrics;
use tutti_service::{histogram, metric};

/// How something was marked.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct MarkLabel {
    /// `read`, `read_to` or `deleted`.
    pub what: &'static str,
}

/// All counters of the service.
#[derive(Clone)]
pub struct Metrics {
    /// What is known of the Redis that the service uses.
    pub redis: RedisMetrics,
    /// Records that Kafka acknowledged: one for each recipient.
    pub sent: Counter,
    /// Sends refused because Kafka did not take them in time.
    pub failed: Counter,
    /// Marks made, repeated ones too.
    pub marks: Family<MarkLabel, Counter>,
    /// How long Kafka took over a send, or until it was given up.
    pub send: Histogram,
}

impl Metrics {
    /// Makes and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        Self {
            redis: RedisMetrics::new(registry),
            sent: metric(
                registry,
                "notifications_sent",
                "Records that Kafka acknowledged, one for each recipient",
            ),
            failed: metric(
                registry,
                "notifications_failed",
                "Sends refused because Kafka did not take them in time",
            ),
            marks: metric(registry, "marks", "Marks made in inboxes, repeated ones too, by what"),
            send: histogram(
                registry,
                "notification_send_seconds",
                "How long Kafka took over a send, or until it was given up",
                exponential_buckets(0.001, 2.0, 17),
            ),
        }
    }
}
