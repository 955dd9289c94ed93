//! A Kafka broker in memory.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::error::Error;

/// A broker that speaks the Kafka protocol: the mock cluster of librdkafka, with threads of its own. It keeps records
/// in memory, a bounded number of them, and ends when it is dropped.
pub struct MockBroker(MockCluster<'static, DefaultProducerContext>);

impl MockBroker {
    /// Starts a broker on a free port.
    ///
    /// # Errors
    /// If librdkafka cannot start it.
    pub fn start() -> Result<Self, Error> {
        Ok(Self(MockCluster::new(1)?))
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// If librdkafka refuses.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), Error> {
        Ok(self.0.create_topic(topic, partitions, 1)?)
    }

    /// Returns the address of the broker, `host:port`.
    pub fn bootstrap_servers(&self) -> String {
        self.0.bootstrap_servers()
    }
}
