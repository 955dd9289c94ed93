//! The one file of this crate that names the Kafka driver.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::OwnedDeliveryResult;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use tutti_service::shared::Kafka;

pub(crate) use rdkafka::error::KafkaError;

use crate::send::Record;

/// Writes to Kafka; what Kafka does not acknowledge in time is given up.
pub(crate) struct Producer {
    kafka: Kafka,
    answer: Duration,
    /// Made anew when it failed for good.
    driver: Mutex<FutureProducer>,
}

/// What will become of a record.
pub(crate) struct Delivery(rdkafka::producer::DeliveryFuture);

impl Producer {
    /// A producer whose records are acknowledged within `answer`, or not at all.
    ///
    /// # Errors
    /// If the driver refuses its configuration.
    pub(crate) fn new(kafka: &Kafka, answer: Duration) -> Result<Self, KafkaError> {
        let driver = Mutex::new(make(kafka, answer)?);
        Ok(Self { kafka: kafka.clone(), answer, driver })
    }

    /// Takes all records, and does not wait for any.
    ///
    /// # Errors
    /// If the driver refuses one, as when its queue is full. Those before it are sent all the same.
    pub(crate) fn send_all(
        &self,
        topic: &str,
        records: impl Iterator<Item = Record>,
    ) -> Result<Vec<Delivery>, KafkaError> {
        let driver = self.driver()?;
        records
            .map(|Record { key, value }| {
                let kind = Header { key: "content-type", value: Some("application/protobuf") };
                let record = FutureRecord::to(topic)
                    .key(key.as_str())
                    .payload(value.as_slice())
                    .headers(OwnedHeaders::new_with_capacity(1).insert(kind));
                driver.send_result(record).map(Delivery).map_err(|(error, _)| error)
            })
            .collect()
    }

    /// The driver; after a fatal error, another.
    fn driver(&self) -> Result<FutureProducer, KafkaError> {
        let mut held = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        if held.client().fatal_error().is_some() {
            let failed = std::mem::replace(&mut *held, make(&self.kafka, self.answer)?);
            // It waits for its thread when it goes.
            tokio::task::spawn_blocking(move || drop(failed));
        }
        Ok(held.clone())
    }
}

impl Delivery {
    /// Waits for Kafka's acknowledgement.
    ///
    /// # Errors
    /// If there will be none.
    pub(crate) async fn acknowledged(self) -> Result<(), KafkaError> {
        let delivered: OwnedDeliveryResult = self.0.await.map_err(|_| KafkaError::Canceled)?;
        delivered.map(drop).map_err(|(error, _)| error)
    }
}

fn make(kafka: &Kafka, answer: Duration) -> Result<FutureProducer, KafkaError> {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", &kafka.brokers)
        .set("client.id", "tutti-notify")
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("message.timeout.ms", answer.as_millis().to_string())
        .set("linger.ms", "2")
        .set("queue.buffering.max.kbytes", "65536");
    for (key, value) in &kafka.properties {
        client.set(key, value);
    }
    client.create()
}

/// What is wrong with the configuration; the driver's own text would tell the value, which may be
/// a secret.
pub(crate) fn refused(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, why, key, _) => format!("kafka.properties.{key}: {why}"),
        other => format!("kafka.properties: {other}"),
    }
}
