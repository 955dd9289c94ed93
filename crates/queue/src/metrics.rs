//! The metrics of the service of the waiting room.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tutti_feed::RedisMetrics;
use tutti_service::metric;

/// The label of a metric by room.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RoomLabel {
    /// The name of the room.
    pub room: String,
}

/// The label of refused calls.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RefusalLabel {
    /// The word of the refusal, `Refusal::as_str`.
    pub reason: &'static str,
}

/// All metrics of the service.
#[derive(Clone)]
pub struct Metrics {
    /// The metrics of the Redis that the service uses.
    pub redis: RedisMetrics,
    /// Joins answered, including repeated ones.
    pub joins: Counter,
    /// Refused calls, by reason.
    pub refused: Family<RefusalLabel, Counter>,
    /// Calls that failed because Redis did not answer.
    pub failed: Counter,
    /// Ticks of rooms.
    pub ticks: Counter,
    /// Ticks of rooms that failed.
    pub tick_errors: Counter,
    /// Waiting tickets, by room.
    pub waiting: Family<RoomLabel, Gauge>,
    /// Tickets inside, by room.
    pub active: Family<RoomLabel, Gauge>,
    /// Changes that Kafka has not acknowledged yet, by room.
    pub unrelayed: Family<RoomLabel, Gauge>,
    /// Changes that Kafka acknowledged.
    pub relayed: Counter,
    /// Attempts to relay that failed.
    pub relay_errors: Counter,
    /// Changes that were lost before they were relayed.
    pub relay_gaps: Counter,
}

impl Metrics {
    /// Creates the metrics and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        Self {
            redis: RedisMetrics::new(registry),
            joins: metric(registry, "queue_joins", "Joins answered, including repeated ones"),
            refused: metric(registry, "queue_refused", "Calls refused, by reason"),
            failed: metric(registry, "queue_failed", "Calls that failed because Redis did not answer"),
            ticks: metric(registry, "queue_ticks", "Ticks of rooms"),
            tick_errors: metric(registry, "queue_tick_errors", "Ticks of rooms that failed"),
            waiting: metric(registry, "queue_waiting", "Waiting tickets, by room"),
            active: metric(registry, "queue_active", "Tickets inside, by room"),
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

    /// Removes the gauges of a room.
    pub(crate) fn forget(&self, room: &str) {
        let label = RoomLabel { room: room.to_owned() };
        for gauge in [&self.waiting, &self.active, &self.unrelayed] {
            gauge.remove(&label);
        }
    }
}
