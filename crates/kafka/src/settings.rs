//! Settings of Kafka clients: where the brokers are, what operators may set, and what they may not override.

use std::collections::BTreeMap;

use rdkafka::config::ClientConfig;
use tutti_service::Settings;

/// Properties that a consumer sets itself. Its exact start offsets and its silence about none rest on them.
const OWNED_BY_CONSUMER: [&str; 8] = [
    "bootstrap.servers",
    "group.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "partition.assignment.strategy",
    "group.protocol",
    "enable.partition.eof",
];

/// Properties that a producer sets itself. Exactly one acknowledged copy of each record rests on them.
const OWNED_BY_PRODUCER: [&str; 5] =
    ["bootstrap.servers", "enable.idempotence", "acks", "message.timeout.ms", "transactional.id"];

/// Prefixes of properties that only consumers know.
const CONSUMERS_ONLY: [&str; 5] = ["fetch.", "queued.", "session.", "heartbeat.", "max.poll."];

/// The settings `kafka.brokers` and `kafka.properties`: where Kafka is, and how its clients connect.
#[derive(Clone, Debug, Default)]
pub struct ClientSettings {
    /// Bootstrap servers, `host:port,...`.
    pub brokers: String,
    /// Properties that are passed to librdkafka unchanged, such as those for TLS and SASL. They may hold secrets.
    pub properties: BTreeMap<String, String>,
}

impl ClientSettings {
    /// Reads the settings of a service that consumes. A property that the consumer sets itself is a mistake.
    pub fn for_consumer(settings: &mut Settings) -> Self {
        Self::read(settings, &OWNED_BY_CONSUMER)
    }

    /// Reads the settings of a service that only produces. A property that the producer sets itself is a mistake.
    pub fn for_producer(settings: &mut Settings) -> Self {
        Self::read(settings, &OWNED_BY_PRODUCER)
    }

    fn read(settings: &mut Settings, owned: &[&str]) -> Self {
        let brokers =
            settings.list("kafka.brokers", &["127.0.0.1:9092"], "bootstrap servers of Kafka, host:port,...");
        if brokers.is_empty() {
            settings.mistake("kafka.brokers is empty; set it to host:port of at least one broker");
        }
        let properties =
            settings.rest("kafka.properties", "passed to librdkafka unchanged, such as security.protocol");
        for key in owned.iter().filter(|key| properties.contains_key(**key)) {
            settings.mistake(format!(
                "kafka.properties.{key} cannot be set: Tutti sets it itself, for its delivery guarantees rest on it"
            ));
        }
        Self { brokers: brokers.join(","), properties }
    }

    /// Returns librdkafka's configuration of one client: `defaults`, then what operators set.
    pub(crate) fn client_config(&self, client_id: &str, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers).set("client.id", client_id);
        for (key, value) in defaults {
            client.set(*key, *value);
        }
        for (key, value) in &self.properties {
            client.set(key, value);
        }
        client
    }

    /// Returns the properties that a producer would warn of, since only consumers know them. One `kafka.properties`
    /// serves the consumer and the producer of a service.
    pub(crate) fn consumers_only(&self) -> impl Iterator<Item = &str> {
        let keys = self.properties.keys().map(String::as_str);
        keys.filter(|key| CONSUMERS_ONLY.iter().any(|prefix| key.starts_with(prefix)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        Settings::new(None, variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn a_property_that_the_guarantees_rest_on_is_refused() {
        let mut consumer = settings(&[("TUTTI_KAFKA_PROPERTIES_AUTO_OFFSET_RESET", "latest")]);
        ClientSettings::for_consumer(&mut consumer);
        let mistakes = consumer.finish().unwrap_err().to_string();
        assert!(mistakes.contains("kafka.properties.auto.offset.reset cannot be set"), "{mistakes}");

        let mut producer = settings(&[("TUTTI_KAFKA_PROPERTIES_ACKS", "1")]);
        ClientSettings::for_producer(&mut producer);
        let mistakes = producer.finish().unwrap_err().to_string();
        assert!(mistakes.contains("kafka.properties.acks cannot be set"), "{mistakes}");
    }

    #[test]
    fn what_operators_set_wins_over_a_default() {
        let mut read =
            settings(&[("TUTTI_KAFKA_PROPERTIES_LINGER_MS", "7"), ("TUTTI_KAFKA_BROKERS", "a:1,b:2")]);
        let kafka = ClientSettings::for_producer(&mut read);
        read.finish().unwrap();
        let client = kafka.client_config("me", &[("linger.ms", "5"), ("acks", "all")]);
        let found = ["bootstrap.servers", "client.id", "linger.ms", "acks"].map(|key| client.get(key));
        assert_eq!(found, [Some("a:1,b:2"), Some("me"), Some("7"), Some("all")]);
    }
}
