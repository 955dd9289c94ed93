//! The metrics of the notifications' service.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tutti_feed::RedisMetrics;
use tutti_service::{histogram, metric};

/// The label set of marks.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct MarkLabel {
    /// The kind of mark: `read`, `read_to` or `deleted`.
    pub what: &'static str,
}

/// All metrics of the service.
#[derive(Clone)]
pub struct Metrics {
    /// What the service observes of its Redis.
    pub redis: RedisMetrics,
    /// Records that Kafka acknowledged, one for each recipient.
    pub sent: Counter,
    /// Sends that failed because Kafka did not acknowledge them in time.
    pub failed: Counter,
    /// Marks that were made, also repeated ones.
    pub marks: Family<MarkLabel, Counter>,
    /// Seconds until Kafka acknowledged a send or the send was given up.
    pub send: Histogram,
}

impl Metrics {
    /// Makes and registers all metrics.
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
                "Sends that failed because Kafka did not acknowledge them in time",
            ),
            marks: metric(registry, "marks", "Marks made in inboxes, also repeated ones, by kind"),
            send: histogram(
                registry,
                "notification_send_seconds",
                "Time until Kafka acknowledged a send or the send was given up",
                exponential_buckets(0.001, 2.0, 17),
            ),
        }
    }
}
