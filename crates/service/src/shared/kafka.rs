//! The settings of Kafka.

use std::collections::BTreeMap;

use crate::settings::Settings;

/// Where Kafka is, and how its clients connect.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// Bootstrap servers, `host:port,...`.
    pub brokers: String,
    /// Properties that are passed to librdkafka unchanged, such as those for TLS and SASL. They may hold secrets.
    pub properties: BTreeMap<String, String>,
}

impl Kafka {
    /// Reads the settings `kafka.*`. `reserved` are the properties that the service sets itself.
    pub fn configure(settings: &mut Settings, reserved: &[&str]) -> Self {
        let brokers =
            settings.list("kafka.brokers", &["127.0.0.1:9092"], "bootstrap servers of Kafka, host:port,...");
        if brokers.is_empty() {
            settings.mistake("kafka.brokers is empty; set it to host:port of at least one broker");
        }
        let properties =
            settings.rest("kafka.properties", "passed to librdkafka unchanged, such as security.protocol");
        for key in reserved.iter().filter(|key| properties.contains_key(**key)) {
            settings.mistake(format!("kafka.properties.{key} is Tutti's own: what it promises rests on it"));
        }
        Self { brokers: brokers.join(","), properties }
    }
}

/// Properties that an idempotent producer sets itself.
pub const PRODUCERS_OWN: [&str; 5] =
    ["bootstrap.servers", "enable.idempotence", "acks", "message.timeout.ms", "transactional.id"];
