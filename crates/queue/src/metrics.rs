//! What the waiting room's service counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tutti_feed::RedisMetrics;

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
        let m = Self {
            redis: RedisMetrics::new(registry),
            joins: Counter::default(),
            refused: Family::default(),
            failed: Counter::default(),
            ticks: Counter::default(),
            tick_errors: Counter::default(),
            waiting: Family::default(),
            active: Family::default(),
            unrelayed: Family::default(),
            relayed: Counter::default(),
            relay_errors: Counter::default(),
            relay_gaps: Counter::default(),
        };
        registry.register("queue_joins", "Joins answered, repeated ones too", m.joins.clone());
        registry.register("queue_refused", "Calls refused, by reason", m.refused.clone());
        registry.register("queue_failed", "Calls that failed for want of Redis", m.failed.clone());
        registry.register("queue_ticks", "Steps of rooms' time", m.ticks.clone());
        registry.register("queue_tick_errors", "Steps of rooms' time that failed", m.tick_errors.clone());
        registry.register("queue_waiting", "Who waits, by room", m.waiting.clone());
        registry.register("queue_active", "Who is inside, by room", m.active.clone());
        registry.register(
            "queue_unrelayed",
            "Changes that Kafka has not acknowledged yet, by room",
            m.unrelayed.clone(),
        );
        registry.register("queue_relayed", "Changes that Kafka acknowledged", m.relayed.clone());
        registry.register("queue_relay_errors", "Attempts to relay that failed", m.relay_errors.clone());
        registry.register(
            "queue_relay_gaps",
            "Changes that were lost before they were relayed",
            m.relay_gaps.clone(),
        );
        m
    }

    /// Forgets a room's gauges.
    pub(crate) fn forget(&self, room: &str) {
        let label = RoomLabel { room: room.to_owned() };
        for gauge in [&self.waiting, &self.active, &self.unrelayed] {
            gauge.remove(&label);
        }
    }
}
