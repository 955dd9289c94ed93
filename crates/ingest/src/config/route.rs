//! The settings `routes.NAME.*`: one topic, and where its records go.

use tutti_model::Format;
use tutti_model::events::{MESSAGE, is_topic_event_name};
use tutti_service::{Settings, not_empty};

/// The route of fixes, unless another is configured.
pub(super) const LOCATIONS: &str = "locations";
/// The route of notifications, unless another is configured.
pub(super) const NOTIFICATIONS: &str = "notifications";
/// The topic that changes of waiting rooms are relayed to, and its route.
pub(super) const QUEUEING_SYSTEM: &str = "queueing-system";

/// A topic whose records ingest carries to Redis.
#[derive(Clone, Debug)]
pub struct Route {
    /// The Kafka topic.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// What the topic carries.
    pub kind: Kind,
    /// Where a partition begins that Redis does not know.
    pub start: Start,
    /// The service is ready only once the consumer group of this topic has answered. A topic that nobody configured may
    /// be missing.
    pub awaited: bool,
}

/// What a topic carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Fixes, for the live map.
    Locations {
        /// The format of values whose bytes and `content-type` header do not show one.
        format: Format,
    },
    /// Notifications, for mailboxes.
    Notifications {
        /// The format of values whose bytes and `content-type` header do not show one.
        format: Format,
    },
    /// Events of any kind. Their values go to the feed of the topic unchanged.
    Events {
        /// The name of events whose record has no header `event`.
        event: String,
    },
}

/// Where a partition begins that Redis does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first record that is not older than the log keeps its records: older fixes are stale anyway.
    LogAge,
    /// At the oldest record.
    Beginning,
    /// After the newest record.
    End,
}

impl Route {
    /// Reads the settings of the route `name`. The name decides the defaults.
    pub(super) fn configure(settings: &mut Settings, name: &str) -> Self {
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
            "where a partition begins that Redis does not know: log-age (no older than the log or the inboxes keep \
             records), beginning or end",
        );
        let kind = match kind {
            "notifications" => Kind::Notifications { format: format(settings, &key("format")) },
            "locations" => Kind::Locations { format: format(settings, &key("format")) },
            _ => Kind::Events {
                event: settings.get_checked(
                    &key("event"),
                    MESSAGE.to_owned(),
                    "the name of events whose record has no header `event`",
                    |name: &String| valid_event_name(name),
                ),
            },
        };
        Self { topic, group, kind, start, awaited: true }
    }
}

fn format(settings: &mut Settings, key: &str) -> Format {
    settings.choice(
        key,
        "json",
        &[("json", Format::Json), ("protobuf", Format::Protobuf)],
        "format of the values: json or protobuf; the header content-type of a record wins",
    )
}

fn valid_event_name(name: &str) -> Result<(), String> {
    if is_topic_event_name(name) {
        return Ok(());
    }
    Err("must be one line of 1 to 128 bytes, and no name or suffix that streams use themselves".to_owned())
}
