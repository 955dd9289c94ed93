//! Errors of Kafka clients.

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use tutti_service::Failure;

/// What librdkafka or a broker answered to a call.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] KafkaError);

impl Error {
    /// Returns whether a producer's queue is full: the record was not taken, and may be sent again soon.
    pub fn is_queue_full(&self) -> bool {
        matches!(self.0, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull))
    }

    /// Returns whether a topic does not exist (yet).
    pub(crate) fn is_unknown_topic(&self) -> bool {
        self.0.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownTopicOrPartition)
    }
}

/// Why librdkafka refused to make a client from `kafka.properties`. The message names the property but never its
/// value, which may be a secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl From<KafkaError> for ConfigError {
    fn from(error: KafkaError) -> Self {
        Self(match error {
            KafkaError::ClientConfig(_, why, key, _) => format!("kafka.properties.{key}: {why}"),
            other => format!("kafka.properties: {other}"),
        })
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error.to_string())
    }
}
