//! The settings of Kafka.

use std::collections::BTreeMap;

use crate::settings::Settings;

/// Kafka, and how to talk to it.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// Bootstrap servers, `host:port,...`.
    pub brokers: String,
    /// Settings handed to librdkafka as they are, as for TLS and SASL. They may hold secrets.
    pub properties: BTreeMap<String, String>,
}

impl Kafka {
    /// Asks for it; `reserved` are the properties that the service's code counts on.
    pub fn configure(settings: &mut Settings, reserved: &[&str]) -> Self {
        let brokers =
            settings.list("kafka.brokers", &["127.0.0.1:9092"], "bootstrap servers of Kafka, host:port,...");
        if brokers.is_empty() {
            settings.mistake("kafka.brokers is empty; it is: host:port of at least one broker");
        }
        let properties =
            settings.rest("kafka.properties", "handed to librdkafka as it is, as security.protocol");
        for key in reserved.iter().filter(|key| properties.contains_key(**key)) {
            settings.mistake(format!("kafka.properties.{key} is Tutti's own: what it promises rests on it"));
        }
        Self { brokers: brokers.join(","), properties }
    }
}

/// Settings of the driver that count for who writes to Kafka with every acknowledgement.
pub const PRODUCERS_OWN: [&str; 5] =
    ["bootstrap.servers", "enable.idempotence", "acks", "message.timeout.ms", "transactional.id"];
