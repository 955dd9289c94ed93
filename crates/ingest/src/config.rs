//! What is carried from where.

use std::collections::BTreeSet;

use tutti_feed::Limits;
use tutti_model::location::Format;
use tutti_service::shared::{self, Kafka, Locations};
use tutti_service::{SecretString, Settings};

/// All settings of ingest.
#[derive(Clone)]
pub struct Config {
    /// Kafka.
    pub kafka: Kafka,
    /// The Redis of the feeds.
    pub redis_url: SecretString,
    /// What defines the live map.
    pub locations: Locations,
    /// What the log of a feed keeps.
    pub limits: Limits,
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
    /// How values are written, where their `content-type` header does not say.
    pub format: Format,
    /// Where a partition begins that Redis does not know.
    pub start: Start,
}

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
        let locations = Locations::configure(settings);
        let limits = Limits {
            max_age: locations.log_age,
            max_entries: settings.get(
                "locations.log_max_entries",
                1_000_000,
                "records that the log of a locations feed keeps at most",
                |n| if *n >= 1000 { Ok(()) } else { Err("must be at least 1000") },
            ),
            max_bytes: settings.get(
                "locations.log_max_bytes",
                512 << 20,
                "bytes of Redis's memory that the log of a locations feed takes at most",
                |n| if *n >= 1 << 20 { Ok(()) } else { Err("must be at least 1048576") },
            ),
        };
        let mut names = settings.tables("routes");
        if names.is_empty() {
            names = BTreeSet::from(["locations".to_owned()]);
        }
        let routes = names.iter().map(|name| Route::configure(settings, name)).collect();
        Self { kafka, redis_url, locations, limits, routes }
    }
}

impl Route {
    fn configure(settings: &mut Settings, name: &str) -> Self {
        let not_empty = |s: &String| if s.is_empty() { Err("must not be empty") } else { Ok(()) };
        let one_of = |words: &'static [&'static str], why: &'static str| {
            move |s: &String| if words.contains(&s.as_str()) { Ok(()) } else { Err(why) }
        };
        let key = |part: &str| format!("routes.{name}.{part}");
        settings.get(
            &key("kind"),
            "locations".to_owned(),
            "what the topic carries: locations",
            one_of(&["locations"], "must be locations"),
        );
        let topic = settings.get(&key("topic"), "media-locations".to_owned(), "the Kafka topic", not_empty);
        let group =
            settings.get(&key("group"), "tutti-locations".to_owned(), "the consumer group", not_empty);
        let format = settings.get(
            &key("format"),
            "json".to_owned(),
            "json or protobuf; a record's content-type header wins",
            one_of(&["json", "protobuf"], "must be json or protobuf"),
        );
        let start = settings.get(
            &key("start"),
            "log-age".to_owned(),
            "where a partition begins that Redis does not know: log-age, beginning or end",
            one_of(&["log-age", "beginning", "end"], "must be log-age, beginning or end"),
        );
        Self {
            topic,
            group,
            format: if format == "protobuf" { Format::Protobuf } else { Format::Json },
            start: match start.as_str() {
                "beginning" => Start::Beginning,
                "end" => Start::End,
                _ => Start::LogAge,
            },
        }
    }
}
