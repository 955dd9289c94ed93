//! What an edge counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tracing::warn;
use tutti_feed::{FollowMetrics, RedisMetrics};
use tutti_service::{histogram, metric};

/// Why a stream was turned away.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct TurnedAway {
    /// Who had as many as it may: `all`, `address` or `user`.
    pub reason: &'static str,
}

/// How a fetch of the key set went.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Fetched {
    /// `ok`, `failed`, or `unusable`: what came has no keys for us.
    pub outcome: &'static str,
}

/// Which copies of the map were made.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Copied {
    /// `whole`, each for all who ask, or `area`.
    pub part: &'static str,
}

/// All counters of an edge.
#[derive(Clone)]
pub struct Metrics {
    /// What is known of the Redis that the service uses.
    pub redis: RedisMetrics,
    /// Metrics of streams, whatever they show.
    pub sse: tutti_sse::metrics::Metrics,
    /// Of the feeds of the live map.
    pub follow: FollowMetrics,
    /// Of the feeds of waiting rooms.
    pub follow_rooms: FollowMetrics,
    /// Of the feeds of topics.
    pub follow_topics: FollowMetrics,
    /// Of the feeds of inboxes.
    pub follow_inboxes: FollowMetrics,
    /// Streams turned away above a limit, by whose that is.
    pub turned_away: Family<TurnedAway, Counter>,
    /// Connections closed at once, since their address had as many as it may.
    pub connections_refused: Counter,
    /// Requests without the right to what they asked for.
    pub refused: Counter,
    /// Fetches of the key set, by outcome.
    pub jwks_fetches: Family<Fetched, Counter>,
    /// Keys held of that set.
    pub jwks_keys: Gauge,
    /// Replays begun.
    pub replays: Counter,
    /// Copies of the map made, by part.
    pub map_copies: Family<Copied, Counter>,
    /// Resets sent to clients.
    pub resets: Counter,
    /// Steps of the map.
    pub ticks: Counter,
    /// Tiles of a step that were encoded for those who look at a part of the world.
    pub tiles_encoded: Counter,
    /// Records whose payload this version does not read.
    pub unreadable: Counter,
    /// Waiting rooms followed.
    pub rooms: Gauge,
    /// Calls that no replica of the waiting room's service answered.
    pub queue_unavailable: Counter,
    /// Calls that no replica of the notifications' service answered.
    pub notify_unavailable: Counter,
    /// Mailboxes read for clients.
    pub mailbox_reads: Counter,
    /// Events of inboxes written, each once for all devices that get it.
    pub letters_encoded: Counter,
    /// Devices on the map.
    pub devices: Gauge,
    /// 1 while no news arrives.
    pub stale: Gauge,
    /// From a record's time in Redis to its tick.
    pub record_age: Histogram,
}

impl Metrics {
    /// Makes and registers them.
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
                "Streams turned away above a limit, by whose that is",
            ),
            connections_refused: metric(
                registry,
                "edge_connections_refused",
                "Connections closed at once, since their address had as many as it may",
            ),
            refused: metric(registry, "edge_requests_refused", "Requests without a valid token or scope"),
            jwks_fetches: metric(
                registry,
                "edge_jwks_fetches",
                "Fetches of the key set at auth.jwks_url, by outcome",
            ),
            jwks_keys: metric(registry, "edge_jwks_keys", "Keys held of that set"),
            replays: metric(registry, "edge_replays", "Replays begun"),
            map_copies: metric(
                registry,
                "edge_map_copies",
                "Copies made for /v1/map/locations: of the whole map, each for all who ask, and of areas",
            ),
            resets: metric(registry, "edge_resets", "Resets sent to clients"),
            ticks: metric(registry, "edge_ticks", "Steps of the map"),
            tiles_encoded: metric(
                registry,
                "edge_tiles_encoded",
                "Tiles of a step encoded for those who look at a part of the world",
            ),
            unreadable: metric(registry, "edge_unreadable_records", "Records that this version cannot read"),
            rooms: metric(registry, "edge_rooms", "Waiting rooms followed"),
            queue_unavailable: metric(
                registry,
                "edge_queue_unavailable",
                "Calls that no replica of the waiting room's service answered",
            ),
            notify_unavailable: metric(
                registry,
                "edge_notify_unavailable",
                "Calls that no replica of the notifications' service answered",
            ),
            letters_encoded: metric(
                registry,
                "edge_letters_encoded",
                "Events of inboxes written, each once for all devices that get it",
            ),
            mailbox_reads: metric(registry, "edge_mailbox_reads", "Mailboxes read for clients"),
            devices: metric(registry, "edge_devices", "Devices on the map"),
            stale: metric(registry, "edge_stale", "1 while no news arrives"),
            record_age: histogram(
                registry,
                "edge_record_age_seconds",
                "From a record's time in Redis to the tick that shows it, by this host's clock",
                exponential_buckets(0.0005, 2.0, 16),
            ),
        }
    }

    /// Counts a record that this version cannot read; and says so, less often the more there are.
    pub(crate) fn cannot_read(&self, feed: &str, seq: u64) {
        let count = self.unreadable.inc() + 1;
        if count.is_power_of_two() {
            warn!(
                feed,
                seq,
                count,
                "a record that this edge cannot read: upgrade it if it is older than what wrote that"
            );
        }
    }
}
