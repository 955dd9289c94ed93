//! The settings of ingest.

mod route;

use std::mem::discriminant;
use std::time::Duration;

use tutti_feed::LogLimits;
use tutti_kafka::ClientSettings;
use tutti_service::shared::{self, Inboxes, Locations};
use tutti_service::{SecretString, Settings};

use route::{LOCATIONS, NOTIFICATIONS, QUEUEING_SYSTEM};

pub use route::{Kind, Route, Start};

/// Name of ingest's clients in the logs and quotas of brokers.
pub(crate) const CLIENT_ID: &str = "tutti-ingest";
/// The routes that run if none is configured.
const DEFAULT_ROUTES: [&str; 3] = [LOCATIONS, NOTIFICATIONS, QUEUEING_SYSTEM];
/// Records that the log of a topic's feed keeps at most.
const TOPIC_LOG_MAX_ENTRIES: u64 = 1_000_000;

/// All settings of ingest.
#[derive(Clone)]
pub struct Config {
    /// Where Kafka is.
    pub kafka: ClientSettings,
    /// The Redis of the feeds.
    pub redis_url: SecretString,
    /// The service starts also on a Redis that may evict keys (`redis.allow_eviction`).
    pub allow_eviction: bool,
    /// A write counts once this many replicas of Redis have it.
    pub wait_replicas: u32,
    /// What defines the live map.
    pub locations: Locations,
    /// What defines the inboxes.
    pub inboxes: Inboxes,
    /// What the log of each feed of the map keeps.
    pub limits: LogLimits,
    /// What the log of each topic's feed keeps.
    pub topic_limits: LogLimits,
    /// The topics to carry.
    pub routes: Vec<Route>,
}

impl Config {
    /// Reads the settings, and reports mistakes to `settings`.
    pub fn configure(settings: &mut Settings) -> Self {
        let kafka = ClientSettings::for_consumer(settings);
        let redis_url = shared::redis_url(settings);
        let allow_eviction = shared::allow_eviction(settings);
        let wait_replicas = shared::wait_replicas(settings);
        let locations = Locations::configure(settings);
        let inboxes = Inboxes::configure(settings);
        let limits = LogLimits {
            max_age: locations.log_age,
            max_entries: settings.number(
                "locations.log_max_entries",
                1_000_000,
                1000..,
                "records that the log of a locations feed keeps at most",
            ),
            max_bytes: settings.number(
                "locations.log_max_bytes",
                512 << 20,
                (1 << 20)..,
                "bytes of Redis's memory that the log of a locations feed takes at most",
            ),
        };
        let topic_limits = LogLimits {
            max_age: Duration::from_secs(settings.number(
                "topics.log_seconds",
                3600,
                60..=7 * 86_400,
                "seconds for which the log of a topic's feed keeps its records",
            )),
            max_entries: TOPIC_LOG_MAX_ENTRIES,
            max_bytes: settings.number(
                "topics.log_max_bytes",
                64 << 20,
                (1 << 20)..,
                "bytes of Redis's memory that the log of a topic's feed takes at most",
            ),
        };
        let routes = routes(settings);
        Self {
            kafka,
            redis_url,
            allow_eviction,
            wait_replicas,
            locations,
            inboxes,
            limits,
            topic_limits,
            routes,
        }
    }
}

/// Reads the routes that `ingest.routes` names. Its default is every table `routes.NAME`, or the default routes if there
/// is no table.
fn routes(settings: &mut Settings) -> Vec<Route> {
    let tables = settings.tables("routes");
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    let default = if tables.is_empty() { DEFAULT_ROUTES.to_vec() } else { tables.clone() };
    let names = settings.list("ingest.routes", &default, "the routes to run, by name");
    if names.is_empty() {
        settings.mistake("ingest.routes is empty; set it to names of routes, such as locations");
    }
    for table in tables.iter().filter(|table| !names.iter().any(|name| name == *table)) {
        settings.mistake(format!("ingest.routes does not name the route {table}, which the file describes"));
    }
    let awaited = |name: &str| name == LOCATIONS || names != DEFAULT_ROUTES;
    let routes: Vec<Route> = names
        .iter()
        .map(|name| Route { awaited: awaited(name), ..Route::configure(settings, name) })
        .collect();
    for (n, route) in routes.iter().enumerate() {
        let kind = |route: &Route| discriminant(&route.kind);
        let is_same = |other: &Route| other.topic == route.topic && kind(other) == kind(route);
        if let Some((other, _)) = names.iter().zip(&routes[..n]).find(|(_, other)| is_same(other)) {
            settings.mistake(format!(
                "routes.{} has the topic and kind of routes.{other}, {}: set its topic, and its kind if it does not \
                 carry locations",
                names[n], route.topic
            ));
        }
    }
    routes
}
