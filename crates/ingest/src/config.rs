//! What is carried from where.

use std::mem::discriminant;
use std::time::Duration;

use tutti_feed::LogLimits;
use tutti_model::Format;
use tutti_model::events::{MESSAGE, is_topic_event_name};
use tutti_service::shared::{self, Inboxes, Kafka, Locations};
use tutti_service::{SecretString, Settings, not_empty};

/// All settings of ingest.
#[derive(Clone)]
pub struct Config {
    /// Kafka.
    pub kafka: Kafka,
    /// The Redis of the feeds.
    pub redis_url: SecretString,
    /// The service starts also on a Redis that may evict keys (`redis.allow_eviction`).
    pub allow_eviction: bool,
    /// A write counts when so many replicas of it have it.
    pub wait_replicas: u32,
    /// What defines the live map.
    pub locations: Locations,
    /// What defines the inboxes.
    pub inboxes: Inboxes,
    /// What the log of a feed of the map keeps.
    pub limits: LogLimits,
    /// What the log of a topic's feed keeps.
    pub topic_limits: LogLimits,
    /// One loop each.
    pub routes: Vec<Route>,
}

/// One topic and where it goes.
#[derive(Clone, Debug)]
pub struct Route {
    /// The Kafka topic.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// What it carries.
    pub kind: Kind,
    /// Where a partition begins that Redis does not know.
    pub start: Start,
    /// It has to be there before this service is ready. One that nobody configured may be missing.
    pub awaited: bool,
}

/// What a topic carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Fixes, for the live map.
    Locations {
        /// How values are written, where their `content-type` header does not say.
        format: Format,
    },
    /// Notifications, for mailboxes.
    Notifications {
        /// As of locations.
        format: Format,
    },
    /// Anything: its values go to the feed of the topic as they are.
    Events {
        /// The event's name, where a record's header `event` does not say.
        event: String,
    },
}

/// The routes where none is configured.
const DEFAULT_ROUTES: [&str; 3] = ["locations", NOTIFICATIONS, QUEUEING_SYSTEM];
/// The route of notifications.
const NOTIFICATIONS: &str = "notifications";
/// The topic that waiting rooms are relayed to, and its route.
const QUEUEING_SYSTEM: &str = "queueing-system";

/// Where a partition begins that Redis does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At what is as old as the log may be: older fixes are stale anyway.
    LogAge,
    /// At the oldest record.
    Beginning,
    /// At what comes from now on.
    End,
}

/// Settings of the driver that the code counts on.
const RESERVED: [&str; 8] = [
    "bootstrap.servers",
    "group.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "partition.assignment.strategy",
    "group.protocol",
    "enable.partition.eof",
];

impl Config {
    /// Asks for them.
    pub fn configure(settings: &mut Settings) -> Self {
        let kafka = Kafka::configure(settings, &RESERVED);
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
            max_entries: 1_000_000,
            max_bytes: settings.number(
                "topics.log_max_bytes",
                64 << 20,
                (1 << 20)..,
                "bytes of Redis's memory that the log of a topic's feed takes at most",
            ),
        };
        let tables = settings.tables("routes");
        let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
        let default = if tables.is_empty() { DEFAULT_ROUTES.to_vec() } else { tables.clone() };
        let names = settings.list("ingest.routes", &default, "the routes to run, by name");
        if names.is_empty() {
            settings.mistake("ingest.routes is empty; it is: names of routes, as locations");
        }
        for table in tables.iter().filter(|table| !names.iter().any(|name| name == *table)) {
            settings
                .mistake(format!("ingest.routes does not name the route {table}, which the file describes"));
        }
        let routes: Vec<Route> = names
            .iter()
            .map(|name| Route {
                awaited: name == "locations" || names != DEFAULT_ROUTES,
                ..Route::configure(settings, name)
            })
            .collect();
        for (n, route) in routes.iter().enumerate() {
            let kind = |route: &Route| discriminant(&route.kind);
            let same = |other: &Route| other.topic == route.topic && kind(other) == kind(route);
            if let Some((other, _)) = names.iter().zip(&routes[..n]).find(|(_, other)| same(other)) {
                settings.mistake(format!(
                    "routes.{} has the topic and kind of routes.{other}, {}: set its topic, and its kind if it does not \
                     carry locations",
                    names[n], route.topic
                ));
            }
        }
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

impl Route {
    fn configure(settings: &mut Settings, name: &str) -> Self {
        let key = |part: &str| format!("routes.{name}.{part}");
        let kind = settings.choice(
            &key("kind"),
            match name {
                QUEUEING_SYSTEM => "events",
                NOTIFICATIONS => "notifications",
                _ => "locations",
            },
            &["locations", "notifications", "events"].map(|word| (word, word)),
            "what the topic carries: locations, notifications, or events of any kind",
        );
        let (topic, group) = match kind {
            "events" if name == QUEUEING_SYSTEM => (name.to_owned(), "queue-event-group".to_owned()),
            "events" => (name.to_owned(), format!("tutti-{name}")),
            "notifications" => ("sse_notifications".to_owned(), "tutti-notifications".to_owned()),
            _ => ("media-locations".to_owned(), "tutti-locations".to_owned()),
        };
        let topic = settings.get_checked(&key("topic"), topic, "the Kafka topic", not_empty);
        let group = settings.get_checked(&key("group"), group, "the consumer group", not_empty);
        let start = settings.choice(
            &key("start"),
            if kind == "locations" { "log-age" } else { "beginning" },
            &[("log-age", Start::LogAge), ("beginning", Start::Beginning), ("end", Start::End)],
            "where a partition begins that Redis does not know: log-age (for notifications, as old as inboxes keep), beginning or end",
        );
        let mut format = || {
            settings.choice(
                &key("format"),
                "json",
                &[("json", Format::Json), ("protobuf", Format::Protobuf)],
                "json or protobuf; a record's content-type header wins",
            )
        };
        let kind = match kind {
            "notifications" => Kind::Notifications { format: format() },
            "locations" => Kind::Locations { format: format() },
            _ => Kind::Events {
                event: settings.get_checked(
                    &key("event"),
                    MESSAGE.to_owned(),
                    "the name of its events, where a record's header event does not say",
                    |event: &String| {
                        if is_topic_event_name(event) {
                            Ok(())
                        } else {
                            Err("must be one line of 1 to 128 bytes, and no name or suffix that streams use themselves".to_owned())
                        }
                    },
                ),
            },
        };
        Self { topic, group, kind, start, awaited: true }
    }
}
