//! What the waiting room's service counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tutti_feed::RedisMetrics;
use tutti_service::metric;

/// Which room.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RoomLabel {
    /// Its name.
    pub room: String,
}

/// Why a call was refused.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RefusalLabel {
    /// See `Refusal::word`.
    pub reason: &'static str,
}

/// All counters of the service.
#[derive(Clone)]
pub struct Metrics {
    /// What is known of the Redis that the service uses.
    pub redis: RedisMetrics,
    /// Joins answered, repeated ones too.
    pub joins: Counter,
    /// Calls refused, by reason.
    pub refused: Family<RefusalLabel, Counter>,
    /// Calls that failed for want of Redis.
    pub failed: Counter,
    /// Steps of rooms' time.
    pub ticks: Counter,
    /// Those that failed.
    pub tick_errors: Counter,
    /// Who waits.
    pub waiting: Family<RoomLabel, Gauge>,
    /// Who is inside.
    pub active: Family<RoomLabel, Gauge>,
    /// Changes that Kafka has not acknowledged yet.
    pub unrelayed: Family<RoomLabel, Gauge>,
    /// Changes that Kafka acknowledged.
    pub relayed: Counter,
    /// Attempts at that that failed.
    pub relay_errors: Counter,
    /// Changes that were lost before they were relayed.
    pub relay_gaps: Counter,
}

impl Metrics {
    /// Makes and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        Self {
            redis: RedisMetrics::new(registry),
            joins: metric(registry, "queue_joins", "Joins answered, repeated ones too"),
            refused: metric(registry, "queue_refused", "Calls refused, by reason"),
            failed: metric(registry, "queue_failed", "Calls that failed for want of Redis"),
            ticks: metric(registry, "queue_ticks", "Steps of rooms' time"),
            tick_errors: metric(registry, "queue_tick_errors", "Steps of rooms' time that failed"),
            waiting: metric(registry, "queue_waiting", "Who waits, by room"),
            active: metric(registry, "queue_active", "Who is inside, by room"),
            unrelayed: metric(
                registry,
                "queue_unrelayed",
                "Changes that Kafka has not acknowledged yet, by room",
            ),
            relayed: metric(registry, "queue_relayed", "Changes that Kafka acknowledged"),
            relay_errors: metric(registry, "queue_relay_errors", "Attempts to relay that failed"),
            relay_gaps: metric(
                registry,
                "queue_relay_gaps",
                "Changes that were lost before they were relayed",
            ),
        }
    }

    /// Forgets a room's gauges.
    pub(crate) fn forget(&self, room: &str) {
        let label = RoomLabel { room: room.to_owned() };
        for gauge in [&self.waiting, &self.active, &self.unrelayed] {
            gauge.remove(&label);
        }
    }
}
