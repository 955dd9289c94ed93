//! What an edge counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tracing::warn;
use tutti_feed::{FollowMetrics, RedisMetrics};

/// Why a stream ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Ended {
    /// `left`, `life`, `drain`, `token`, `stalled` or `over`.
    pub reason: &'static str,
}

/// Why a stream was turned away.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct TurnedAway {
    /// Who had as many as it may: `all`, `address` or `user`.
    pub reason: &'static str,
}

/// How what could not be read as a request was answered.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Unreadable {
    /// The status: 400, 408 or 431.
    pub status: u16,
}

/// How a fetch of the key set went.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Fetched {
    /// `ok`, `failed`, or `unusable`: what came has no keys for us.
    pub outcome: &'static str,
}

/// What waits for a turn.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Waiting {
    /// `replay`, `short_replay`, `mailbox`, `question`, `map_copy` or `small_map_copy`.
    pub turn: &'static str,
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
    /// Of the feeds of the live map.
    pub follow: FollowMetrics,
    /// Of the feeds of waiting rooms.
    pub follow_rooms: FollowMetrics,
    /// Of the feeds of topics.
    pub follow_topics: FollowMetrics,
    /// Of the feeds of inboxes.
    pub follow_inboxes: FollowMetrics,
    /// Streams open.
    pub streams: Gauge,
    /// Streams that are being served by a replay or wait for their socket.
    pub behind: Gauge,
    /// Streams opened.
    pub opened: Counter,
    /// Streams ended, by reason.
    pub ended: Family<Ended, Counter>,
    /// Streams turned away above a limit, by whose that is.
    pub turned_away: Family<TurnedAway, Counter>,
    /// Connections closed at once, since their address had as many as it may.
    pub connections_refused: Counter,
    /// Requests without the right to what they asked for.
    pub refused: Counter,
    /// What could not be read as a request, by the status of the answer.
    pub unreadable_requests: Family<Unreadable, Counter>,
    /// Fetches of the key set, by outcome.
    pub jwks_fetches: Family<Fetched, Counter>,
    /// Keys held of that set.
    pub jwks_keys: Gauge,
    /// Frames written to clients.
    pub deliveries: Counter,
    /// Bytes written to clients.
    pub delivered_bytes: Counter,
    /// Times a socket would not take a whole frame.
    pub fell_behind: Counter,
    /// Replays begun.
    pub replays: Counter,
    /// Those that wait for a turn, by at what.
    pub waiting: Family<Waiting, Gauge>,
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
        let m = Self {
            redis: RedisMetrics::new(registry),
            follow: FollowMetrics::new(registry),
            follow_rooms: FollowMetrics::new(registry.sub_registry_with_prefix("rooms")),
            follow_topics: FollowMetrics::new(registry.sub_registry_with_prefix("topics")),
            follow_inboxes: FollowMetrics::new(registry.sub_registry_with_prefix("inboxes")),
            streams: Gauge::default(),
            behind: Gauge::default(),
            opened: Counter::default(),
            ended: Family::default(),
            turned_away: Family::default(),
            connections_refused: Counter::default(),
            refused: Counter::default(),
            unreadable_requests: Family::default(),
            jwks_fetches: Family::default(),
            jwks_keys: Gauge::default(),
            deliveries: Counter::default(),
            delivered_bytes: Counter::default(),
            fell_behind: Counter::default(),
            replays: Counter::default(),
            waiting: Family::default(),
            map_copies: Family::default(),
            resets: Counter::default(),
            ticks: Counter::default(),
            unreadable: Counter::default(),
            rooms: Gauge::default(),
            queue_unavailable: Counter::default(),
            notify_unavailable: Counter::default(),
            mailbox_reads: Counter::default(),
            tiles_encoded: Counter::default(),
            letters_encoded: Counter::default(),
            devices: Gauge::default(),
            stale: Gauge::default(),
            record_age: Histogram::new(exponential_buckets(0.0005, 2.0, 16)),
        };
        registry.register("edge_streams", "Streams open", m.streams.clone());
        registry.register(
            "edge_streams_behind",
            "Streams being replayed to, or whose socket is full",
            m.behind.clone(),
        );
        registry.register("edge_streams_opened", "Streams opened", m.opened.clone());
        registry.register("edge_streams_ended", "Streams ended, by reason", m.ended.clone());
        registry.register(
            "edge_streams_turned_away",
            "Streams turned away above a limit, by whose that is",
            m.turned_away.clone(),
        );
        registry.register(
            "edge_connections_refused",
            "Connections closed at once, since their address had as many as it may",
            m.connections_refused.clone(),
        );
        registry.register(
            "edge_requests_refused",
            "Requests without a valid token or scope",
            m.refused.clone(),
        );
        registry.register(
            "edge_requests_unreadable",
            "What clients sent that cannot be read as a request, by the status of the answer",
            m.unreadable_requests.clone(),
        );
        registry.register(
            "edge_jwks_fetches",
            "Fetches of the key set at auth.jwks_url, by outcome",
            m.jwks_fetches.clone(),
        );
        registry.register("edge_jwks_keys", "Keys held of that set", m.jwks_keys.clone());
        registry.register("edge_deliveries", "Frames written to clients", m.deliveries.clone());
        registry.register("edge_delivered_bytes", "Bytes written to clients", m.delivered_bytes.clone());
        registry.register(
            "edge_fell_behind",
            "Times a socket would not take a whole frame",
            m.fell_behind.clone(),
        );
        registry.register("edge_replays", "Replays begun", m.replays.clone());
        registry.register(
            "edge_turns_waiting",
            "Streams and requests that wait for their turn, by at what",
            m.waiting.clone(),
        );
        registry.register(
            "edge_map_copies",
            "Copies made for /v1/map/locations: of the whole map, each for all who ask, and of areas",
            m.map_copies.clone(),
        );
        registry.register("edge_resets", "Resets sent to clients", m.resets.clone());
        registry.register("edge_ticks", "Steps of the map", m.ticks.clone());
        registry.register(
            "edge_tiles_encoded",
            "Tiles of a step encoded for those who look at a part of the world",
            m.tiles_encoded.clone(),
        );
        registry.register(
            "edge_unreadable_records",
            "Records that this version cannot read",
            m.unreadable.clone(),
        );
        registry.register("edge_rooms", "Waiting rooms followed", m.rooms.clone());
        registry.register(
            "edge_queue_unavailable",
            "Calls that no replica of the waiting room's service answered",
            m.queue_unavailable.clone(),
        );
        registry.register(
            "edge_notify_unavailable",
            "Calls that no replica of the notifications' service answered",
            m.notify_unavailable.clone(),
        );
        registry.register(
            "edge_letters_encoded",
            "Events of inboxes written, each once for all devices that get it",
            m.letters_encoded.clone(),
        );
        registry.register("edge_mailbox_reads", "Mailboxes read for clients", m.mailbox_reads.clone());
        registry.register("edge_devices", "Devices on the map", m.devices.clone());
        registry.register("edge_stale", "1 while no news arrives", m.stale.clone());
        registry.register(
            "edge_record_age_seconds",
            "From a record's time in Redis to the tick that shows it, by this host's clock",
            m.record_age.clone(),
        );
        m
    }

    /// The number of those that wait for such a turn.
    pub(crate) fn waiting_for(&self, turn: &'static str) -> Gauge {
        self.waiting.get_or_create(&Waiting { turn }).clone()
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
