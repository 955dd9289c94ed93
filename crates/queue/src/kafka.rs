//! The one file of this crate that names the Kafka driver.

use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;
use tutti_service::shared::Kafka;

pub(crate) use rdkafka::error::KafkaError;
use rdkafka::producer::future_producer::OwnedDeliveryResult;

/// Writes to Kafka in the order in which it is given records; what it takes it tries to write for
/// ever.
pub(crate) struct Producer(FutureProducer);

/// What will become of a record.
pub(crate) struct Delivery(rdkafka::producer::DeliveryFuture);

/// One record.
pub(crate) struct Record<'a> {
    pub(crate) topic: &'a str,
    pub(crate) key: &'a str,
    pub(crate) value: &'a [u8],
    pub(crate) timestamp_ms: i64,
    pub(crate) headers: &'a [(&'a str, String)],
}

impl Producer {
    /// # Errors
    /// If the driver refuses its configuration.
    pub(crate) fn new(kafka: &Kafka) -> Result<Self, KafkaError> {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &kafka.brokers)
            .set("client.id", "tutti-queue")
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", "0")
            .set("linger.ms", "5")
            .set("queue.buffering.max.kbytes", "65536");
        for (key, value) in &kafka.properties {
            client.set(key, value);
        }
        client.create().map(Self)
    }

    /// Takes a record; `None` while the driver's queue is full.
    ///
    /// # Errors
    /// If the driver refuses it.
    pub(crate) fn send(&self, record: &Record<'_>) -> Result<Option<Delivery>, KafkaError> {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (key, value) in record.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let record = FutureRecord::to(record.topic)
            .key(record.key)
            .payload(record.value)
            .timestamp(record.timestamp_ms)
            .headers(headers);
        match self.0.send_result(record) {
            Ok(delivery) => Ok(Some(Delivery(delivery))),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(None),
            Err((error, _)) => Err(error),
        }
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

/// What is wrong with the configuration; the driver's own text would tell the value, which may be
/// a secret.
pub(crate) fn refused(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, why, key, _) => format!("kafka.properties.{key}: {why}"),
        other => format!("kafka.properties: {other}"),
    }
}
