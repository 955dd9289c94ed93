//! Writes to any Kafka.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;

/// How many records Kafka has acknowledged, and how many it has not in time.
#[derive(Clone, Default)]
pub struct Deliveries {
    acknowledged: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl Deliveries {
    /// Acknowledged by Kafka.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Given up.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() { &self.acknowledged } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A producer for one topic.
pub struct Publisher {
    producer: ThreadedProducer<Deliveries>,
    topic: String,
    deliveries: Deliveries,
}

impl Publisher {
    /// Connects to brokers, `host:port,...`.
    ///
    /// # Errors
    /// If the driver refuses its configuration.
    pub fn new(brokers: &str, topic: &str) -> anyhow::Result<Self> {
        let deliveries = Deliveries::default();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("client.id", "tutti-load")
            .set("linger.ms", "5")
            .set("enable.idempotence", "true")
            .create_with_context(deliveries.clone())
            .with_context(|| format!("a producer for Kafka at {brokers}"))?;
        Ok(Self { producer, topic: topic.to_owned(), deliveries })
    }

    /// Hands a record over, waiting while the driver's queue is full; a `None` value is a null.
    ///
    /// # Errors
    /// If the driver refuses it, as where it is too large.
    pub async fn send(&self, key: &str, value: Option<&[u8]>) -> anyhow::Result<()> {
        self.send_as(key, value, None).await
    }

    /// The same, with a header that names the form of the value.
    ///
    /// # Errors
    /// As [`Publisher::send`].
    pub async fn send_as(
        &self,
        key: &str,
        value: Option<&[u8]>,
        content_type: Option<&str>,
    ) -> anyhow::Result<()> {
        loop {
            let mut record = BaseRecord::to(&self.topic).key(key);
            record.payload = value;
            record.headers = content_type
                .map(|value| OwnedHeaders::new().insert(Header { key: "content-type", value: Some(value) }));
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err((error, _)) => return Err(error).context(format!("writing to topic {}", self.topic)),
            }
        }
    }

    /// What became of what was sent.
    pub fn deliveries(&self) -> &Deliveries {
        &self.deliveries
    }

    /// Waits until Kafka has all of it.
    ///
    /// # Errors
    /// If it takes longer than `timeout`, or a record was given up.
    pub async fn flush(&self, timeout: Duration) -> anyhow::Result<()> {
        let producer = self.producer.clone();
        let flushed = tokio::task::spawn_blocking(move || producer.flush(timeout)).await?;
        flushed.with_context(|| format!("waiting for Kafka to acknowledge, topic {}", self.topic))?;
        anyhow::ensure!(
            self.deliveries.failed() == 0,
            "Kafka did not take {} records",
            self.deliveries.failed()
        );
        Ok(())
    }
}
