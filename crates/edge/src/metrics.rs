//! The metrics of an edge.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tracing::warn;
use tutti_feed::{FollowMetrics, RedisMetrics};
use tutti_service::{histogram, metric};

/// The label of [`Metrics::turned_away`]: why a stream was turned away.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct TurnedAway {
    /// `all`, `address` or `user`, by whose limit was reached; `unavailable` if a service behind the edge was.
    pub reason: &'static str,
}

/// The label of [`Metrics::jwks_fetches`]: how a fetch of the key set went.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Fetched {
    /// `ok`, `failed`, or `unusable` if the response holds no key that the edge can use.
    pub outcome: &'static str,
}

/// The label of [`Metrics::map_copies`]: what a copy of the map shows.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Copied {
    /// `whole` for the whole map, which all clients share, or `area`.
    pub part: &'static str,
}

/// All metrics of an edge. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    /// Metrics of the Redis that the edge uses.
    pub redis: RedisMetrics,
    /// Metrics of streams, whatever they show.
    pub sse: tutti_sse::metrics::Metrics,
    /// Metrics of following the feeds of the live map.
    pub follow: FollowMetrics,
    /// Metrics of following the feeds of waiting rooms.
    pub follow_rooms: FollowMetrics,
    /// Metrics of following the feeds of topics.
    pub follow_topics: FollowMetrics,
    /// Metrics of following the feeds of inboxes.
    pub follow_inboxes: FollowMetrics,
    /// Streams turned away, by reason.
    pub turned_away: Family<TurnedAway, Counter>,
    /// Connections closed at once because their address had reached its limit.
    pub connections_refused: Counter,
    /// Requests refused because they had no valid token or scope.
    pub refused: Counter,
    /// Fetches of the key set, by outcome.
    pub jwks_fetches: Family<Fetched, Counter>,
    /// Keys held of the key set.
    pub jwks_keys: Gauge,
    /// Replays of the map that were started.
    pub replays: Counter,
    /// Copies of the map that were made, by part.
    pub map_copies: Family<Copied, Counter>,
    /// Resets sent to clients.
    pub resets: Counter,
    /// Ticks of the map that were published.
    pub ticks: Counter,
    /// Tiles of a tick that were encoded for clients that see a part of the world.
    pub tiles_encoded: Counter,
    /// Records whose payload this version cannot read.
    pub unreadable: Counter,
    /// Waiting rooms that the edge follows now.
    pub rooms: Gauge,
    /// Calls to queue that no replica answered.
    pub queue_unavailable: Counter,
    /// Calls to notify that no replica answered.
    pub notify_unavailable: Counter,
    /// Mailboxes that were read for clients.
    pub mailbox_reads: Counter,
    /// Events of inboxes that were encoded, each once for all devices that receive it.
    pub letters_encoded: Counter,
    /// Devices on the map now.
    pub devices: Gauge,
    /// 1 while a feed of the live map brings no news, else 0.
    pub stale: Gauge,
    /// Seconds from a record's time in Redis to the tick that shows it.
    pub record_age: Histogram,
}

impl Metrics {
    /// Creates and registers all metrics.
    pub fn new(registry: &mut Registry) -> Self {
        Self {
            redis: RedisMetrics::new(registry),
            sse: tutti_sse::metrics::Metrics::new(registry),
            follow: FollowMetrics::new(registry),
            follow_rooms: FollowMetrics::new(registry.sub_registry_with_prefix("rooms")),
            follow_topics: FollowMetrics::new(registry.sub_registry_with_prefix("topics")),
            follow_inboxes: FollowMetrics::new(registry.sub_registry_with_prefix("inboxes")),
            turned_away: metric(
                registry,
                "edge_streams_turned_away",
                "Streams turned away, by reason: whose limit was reached, or that a service was unavailable",
            ),
            connections_refused: metric(
                registry,
                "edge_connections_refused",
                "Connections closed at once because their address had reached its limit",
            ),
            refused: metric(
                registry,
                "edge_requests_refused",
                "Requests refused because they had no valid token or scope",
            ),
            jwks_fetches: metric(
                registry,
                "edge_jwks_fetches",
                "Fetches of the key set at auth.jwks_url, by outcome",
            ),
            jwks_keys: metric(registry, "edge_jwks_keys", "Keys held of the key set at auth.jwks_url"),
            replays: metric(registry, "edge_replays", "Replays of the map that were started"),
            map_copies: metric(
                registry,
                "edge_map_copies",
                "Copies made for /v1/map/locations: of the whole map, which all clients share, and of areas",
            ),
            resets: metric(registry, "edge_resets", "Resets sent to clients"),
            ticks: metric(registry, "edge_ticks", "Ticks of the map that were published"),
            tiles_encoded: metric(
                registry,
                "edge_tiles_encoded",
                "Tiles of a tick encoded for clients that see a part of the world",
            ),
            unreadable: metric(registry, "edge_unreadable_records", "Records that this version cannot read"),
            rooms: metric(registry, "edge_rooms", "Waiting rooms that this edge follows"),
            queue_unavailable: metric(
                registry,
                "edge_queue_unavailable",
                "Calls to queue that no replica answered",
            ),
            notify_unavailable: metric(
                registry,
                "edge_notify_unavailable",
                "Calls to notify that no replica answered",
            ),
            letters_encoded: metric(
                registry,
                "edge_letters_encoded",
                "Events of inboxes encoded, each once for all devices that receive it",
            ),
            mailbox_reads: metric(registry, "edge_mailbox_reads", "Mailboxes read for clients"),
            devices: metric(registry, "edge_devices", "Devices on the map"),
            stale: metric(registry, "edge_stale", "1 while a feed of the live map brings no news, else 0"),
            record_age: histogram(
                registry,
                "edge_record_age_seconds",
                "Seconds from a record's time in Redis to the tick that shows it, by this host's clock",
                exponential_buckets(0.0005, 2.0, 16),
            ),
        }
    }

    /// Counts a record that this version cannot read. Logs the first, the second, the fourth and so on, so that a feed
    /// full of such records does not fill the log.
    pub(crate) fn cannot_read(&self, feed: &str, seq: u64) {
        let count = self.unreadable.inc() + 1;
        if count.is_power_of_two() {
            warn!(
                feed,
                seq,
                count,
                "skipped a record that this edge cannot read; upgrade the edge if the service that wrote it is newer"
            );
        }
    }
}
