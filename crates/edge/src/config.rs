//! The settings of an edge, put together from the settings of each folder.

use std::net::SocketAddr;

use tutti_service::shared;
use tutti_service::{SecretString, Settings, file_limit};

use crate::http::auth::Verifier;
use crate::http::files::streams_by_default;
use crate::http::settings::{Http, Streams};
use crate::inbox::settings::InboxSettings;
use crate::map::settings::MapSettings;
use crate::rooms::settings::RoomSettings;
use crate::topics::settings::TopicSettings;

/// All settings of an edge.
#[derive(Clone)]
pub struct Config {
    /// Address of the public HTTP port.
    pub listen: SocketAddr,
    /// Number of worker threads.
    pub workers: usize,
    /// Bounds of connections that are not streams.
    pub http: Http,
    /// Bounds of streams.
    pub streams: Streams,
    /// Checks the tokens of requests against the configured keys.
    pub verifier: Verifier,
    /// URL of the Redis that holds the feeds. It may contain a password.
    pub redis_url: SecretString,
    /// Whether the service also starts on a Redis that may evict keys (`redis.allow_eviction`).
    pub allow_eviction: bool,
    /// Settings of the live map.
    pub map: MapSettings,
    /// Settings of waiting rooms.
    pub rooms: RoomSettings,
    /// Settings of inboxes.
    pub inbox: InboxSettings,
    /// Settings of topics.
    pub topics: TopicSettings,
}

impl Config {
    /// Reads all settings, and notes the mistakes in them.
    pub fn configure(settings: &mut Settings) -> Self {
        let listen = settings.get(
            "http.listen",
            SocketAddr::from(([127, 0, 0, 1], 8080)),
            "address of the public HTTP port",
        );
        let workers =
            settings.number("http.workers", 0usize, 0..=512, "number of worker threads; 0: one per core");
        let workers = if workers == 0 { cores() } else { workers };
        let http = Http::configure(settings);
        let redis_url = shared::redis_url(settings);
        let allow_eviction = shared::allow_eviction(settings);
        let map = MapSettings::configure(settings);
        let inbox = InboxSettings::configure(settings);
        let rooms = RoomSettings::configure(settings);
        let topics = TopicSettings::configure(settings);
        let streams = Streams::configure(settings, streams_by_default(workers, file_limit()));
        let verifier = Verifier::configure(settings);
        if !rooms.is_public && !verifier.has_keys() {
            settings.mistake(
                "rooms.public = false needs keys to check tokens with: auth.hs256_secret, auth.jwks_file or auth.jwks_url",
            );
        }
        if !map.is_public && !verifier.has_keys() {
            settings.mistake(
                "map.public = false needs keys to check tokens with: auth.hs256_secret, auth.jwks_file or auth.jwks_url",
            );
        }
        Self {
            listen,
            workers,
            http,
            streams,
            verifier,
            redis_url,
            allow_eviction,
            map,
            rooms,
            inbox,
            topics,
        }
    }
}

/// Returns the number of cores that the process may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
