//! Metrics of feeds, mailboxes and their Redis.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Metrics of a service that appends to feeds.
#[derive(Clone, Debug, Default)]
pub struct AppendMetrics {
    /// Records appended.
    pub appended: Counter,
    /// Bytes of payload appended.
    pub appended_bytes: Counter,
    /// Appends that were refused because the source in Redis stands before the position that they continue from.
    pub refused: Counter,
}

impl AppendMetrics {
    /// Registers the metrics.
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

/// Metrics of a service that files items in mailboxes.
#[derive(Clone, Debug, Default)]
pub struct MailboxMetrics {
    /// Items filed.
    pub filed: Counter,
    /// Items that were filed before. They changed nothing.
    pub known: Counter,
    /// Items that had expired before they were to be filed.
    pub expired: Counter,
}

impl MailboxMetrics {
    /// Registers the metrics.
    pub fn new(registry: &mut Registry) -> Self {
        let m = Self::default();
        registry.register("mailbox_filed", "Items filed in mailboxes", m.filed.clone());
        registry.register("mailbox_known", "Items that were in their mailbox before", m.known.clone());
        registry.register("mailbox_expired", "Items that had expired before they came", m.expired.clone());
        m
    }
}

/// Metrics of the Redis that a service uses.
#[derive(Clone, Debug, Default)]
pub struct RedisMetrics {
    /// 1 while a node of Redis may evict keys.
    pub evicts: Gauge,
}

impl RedisMetrics {
    /// Registers the metrics.
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

/// Metrics of a service that follows feeds.
#[derive(Clone, Debug, Default)]
pub struct FollowMetrics {
    /// Records that were delivered.
    pub records: Counter,
    /// Refills from the log, except the first one of each feed.
    pub refills: Counter,
    /// Subscriptions that were made again because they did not bring what was published.
    pub deaf: Counter,
    /// Overflows of the receive buffer.
    pub overflows: Counter,
    /// Reconnects of the subscription.
    pub reconnects: Counter,
    /// Resets: records were missing for good, or the history was another.
    pub resets: Counter,
    /// 1 if all heads could be read at the last poll.
    pub connected: Gauge,
}

impl FollowMetrics {
    /// Registers the metrics.
    pub fn new(registry: &mut Registry) -> Self {
        let m = Self::default();
        registry.register("feed_records", "Records delivered by followed feeds", m.records.clone());
        registry.register(
            "feed_refills",
            "Refills from the log after a gap or a reconnect",
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
