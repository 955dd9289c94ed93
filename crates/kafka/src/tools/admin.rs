//! Creates, configures and deletes topics.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use crate::error::Error;

/// How long the brokers may take to carry out a request.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(30);

/// An administrator of a Kafka cluster.
pub struct Admin(AdminClient<DefaultClientContext>);

impl Admin {
    /// Connects to the bootstrap servers, `host:port,...`.
    ///
    /// # Errors
    /// If librdkafka cannot make a client.
    pub fn connect(brokers: &str) -> Result<Self, Error> {
        Ok(Self(ClientConfig::new().set("bootstrap.servers", brokers).create()?))
    }

    /// Creates a topic without replicas, with settings of its own such as `max.message.bytes`. Returns whether it is
    /// new; a topic that exists is left as it is.
    ///
    /// # Errors
    /// If Kafka refuses or does not answer.
    pub async fn create_topic(
        &self,
        topic: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<bool, Error> {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            new = new.set(key, value);
        }
        match done(self.0.create_topics([&new], &options()).await?) {
            Err(KafkaError::AdminOp(RDKafkaErrorCode::TopicAlreadyExists)) => Ok(false),
            created => Ok(created.map(|()| true)?),
        }
    }

    /// Changes settings of a topic.
    ///
    /// # Errors
    /// If Kafka refuses or does not answer.
    pub async fn configure_topic(&self, topic: &str, settings: &[(&str, &str)]) -> Result<(), Error> {
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(topic));
        for (key, value) in settings {
            change = change.set(key, value);
        }
        Ok(done(self.0.alter_configs([&change], &options()).await?)?)
    }

    /// Deletes a topic with its records.
    ///
    /// # Errors
    /// If Kafka refuses or does not answer.
    pub async fn delete_topic(&self, topic: &str) -> Result<(), Error> {
        Ok(done(self.0.delete_topics(&[topic], &options()).await?)?)
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(OPERATION_TIMEOUT))
}

/// Returns the first error in Kafka's answers, one for each topic.
fn done<T, U>(answers: Vec<Result<T, (U, RDKafkaErrorCode)>>) -> Result<(), KafkaError> {
    let mut answers = answers.into_iter();
    answers.try_for_each(|answer| answer.map(drop).map_err(|(_, code)| KafkaError::AdminOp(code)))
}
