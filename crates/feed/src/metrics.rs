//! What a feed counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counted by who appends.
#[derive(Clone, Debug, Default)]
pub struct AppendMetrics {
    /// Records appended.
    pub appended: Counter,
    /// Bytes of payload appended.
    pub appended_bytes: Counter,
    /// Appends that Redis refused since it is before the position they came from.
    pub refused: Counter,
}

impl AppendMetrics {
    /// Makes the counters and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let m = Self::default();
        registry.register("feed_appended", "Records appended to feeds", m.appended.clone());
        registry.register(
            "feed_appended_payload_bytes",
            "Bytes of payload appended to feeds",
            m.appended_bytes.clone(),
        );
        registry.register(
            "feed_refused",
            "Appends refused because Redis stands before the position they came from",
            m.refused.clone(),
        );
        m
    }
}

/// Counted by who files in mailboxes.
#[derive(Clone, Debug, Default)]
pub struct MailboxMetrics {
    /// Items filed.
    pub filed: Counter,
    /// Items that were there before: they came again, and changed nothing.
    pub known: Counter,
    /// Items that had expired before they came.
    pub expired: Counter,
}

impl MailboxMetrics {
    /// Makes the counters and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let m = Self::default();
        registry.register("mailbox_filed", "Items filed in mailboxes", m.filed.clone());
        registry.register("mailbox_known", "Items that were in their mailbox before", m.known.clone());
        registry.register("mailbox_expired", "Items that had expired before they came", m.expired.clone());
        m
    }
}

/// What is known of the Redis that a service uses.
#[derive(Clone, Debug, Default)]
pub struct RedisMetrics {
    /// 1 while a node of it may evict.
    pub evicts: Gauge,
}

impl RedisMetrics {
    /// Makes the gauge and registers it.
    pub fn new(registry: &mut Registry) -> Self {
        let m = Self::default();
        registry.register(
            "redis_evicts",
            "1 while the maxmemory-policy of Redis lets it throw data away",
            m.evicts.clone(),
        );
        m
    }
}

/// Counted by who follows.
#[derive(Clone, Debug, Default)]
pub struct FollowMetrics {
    /// Records delivered.
    pub records: Counter,
    /// Refills from the log, for whatever reason but the first.
    pub refills: Counter,
    /// Subscriptions found deaf: published records were not heard.
    pub deaf: Counter,
    /// Times the receive buffer overflowed.
    pub overflows: Counter,
    /// Reconnects of the subscription.
    pub reconnects: Counter,
    /// Resets: records that no log has any more, or another history.
    pub resets: Counter,
    /// 1 while the heads could be read at the last poll.
    pub connected: Gauge,
}

impl FollowMetrics {
    /// Makes the counters and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let m = Self::default();
        registry.register("feed_records", "Records delivered by followed feeds", m.records.clone());
        registry.register(
            "feed_refills",
            "Refills from the log after a hole or a reconnect",
            m.refills.clone(),
        );
        registry.register("feed_deaf", "Subscriptions that did not hear what was published", m.deaf.clone());
        registry.register("feed_overflows", "Overflows of the receive buffer", m.overflows.clone());
        registry.register("feed_reconnects", "Reconnects of the subscription", m.reconnects.clone());
        registry.register("feed_resets", "Resets: lost records or another history", m.resets.clone());
        registry.register("feed_connected", "1 while Redis answers the follower", m.connected.clone());
        m
    }
}
