//! A producer that writes to any Kafka.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tutti_kafka::tools::CallbackProducer;
use tutti_kafka::{ProducerOptions, ProducerRecord};

/// Counts the records that Kafka has acknowledged, and those that were given up.
#[derive(Clone, Default)]
pub struct Deliveries {
    acknowledged: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl Deliveries {
    /// Returns the number of records that Kafka has acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Returns the number of records that Kafka did not acknowledge in time.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    fn count(&self, is_acknowledged: bool) {
        let counter = if is_acknowledged { &self.acknowledged } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A producer for one topic.
pub struct Publisher {
    producer: CallbackProducer,
    topic: String,
    deliveries: Deliveries,
}

impl Publisher {
    /// Connects to brokers, `host:port,...`.
    ///
    /// # Errors
    /// If the Kafka client refuses the configuration.
    pub fn new(brokers: &str, topic: &str) -> anyhow::Result<Self> {
        let deliveries = Deliveries::default();
        let counted = deliveries.clone();
        let options = ProducerOptions {
            client_id: "tutti-load",
            delivery_timeout: None,
            linger: Duration::from_millis(5),
        };
        let producer =
            CallbackProducer::connect(brokers, &options, move |_, delivered| counted.count(delivered))
                .with_context(|| format!("a producer for Kafka at {brokers}"))?;
        Ok(Self { producer, topic: topic.to_owned(), deliveries })
    }

    /// Hands a record to the producer, and waits while its queue is full. The value `None` is a Kafka null.
    ///
    /// # Errors
    /// If the Kafka client refuses the record, for example because it is too large.
    pub async fn send(&self, key: &str, value: Option<&[u8]>) -> anyhow::Result<()> {
        self.send_as(key, value, None).await
    }

    /// Hands a record to the producer like [`Publisher::send`], with a header that names the format of the value.
    ///
    /// # Errors
    /// If the Kafka client refuses the record.
    pub async fn send_as(
        &self,
        key: &str,
        value: Option<&[u8]>,
        content_type: Option<&str>,
    ) -> anyhow::Result<()> {
        let header = content_type.map(|content_type| ("content-type", content_type));
        let record = ProducerRecord {
            topic: &self.topic,
            key: Some(key.as_bytes()),
            value,
            headers: header.as_slice(),
            ..ProducerRecord::default()
        };
        loop {
            match self.producer.send(0, &record) {
                Err(error) if error.is_queue_full() => tokio::time::sleep(Duration::from_millis(5)).await,
                sent => return sent.with_context(|| format!("writing to topic {}", self.topic)),
            }
        }
    }

    /// Returns what became of the records.
    pub fn deliveries(&self) -> &Deliveries {
        &self.deliveries
    }

    /// Waits until Kafka has acknowledged every record.
    ///
    /// # Errors
    /// If that takes longer than `timeout`, or if a record was given up.
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
