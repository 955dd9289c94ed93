//! A producer for many records, whose outcomes are counted and not awaited.

use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};

use crate::error::Error;
use crate::producer::{ProducerOptions, ProducerRecord};

/// An idempotent producer that reports each outcome to a callback. This costs less than a [`crate::Delivery`] for each
/// record. Clones share one client.
#[derive(Clone)]
pub struct CallbackProducer(ThreadedProducer<Callback>);

/// Receives the number that a record was sent with, and whether Kafka acknowledged the record.
struct Callback(Box<dyn Fn(usize, bool) + Send + Sync>);

impl ClientContext for Callback {}

impl ProducerContext for Callback {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        (self.0)(number, result.is_ok());
    }
}

impl CallbackProducer {
    /// Connects to the bootstrap servers, `host:port,...`. `delivered` is called on a thread of the client.
    ///
    /// # Errors
    /// If librdkafka cannot make a client.
    pub fn connect(
        brokers: &str,
        options: &ProducerOptions<'_>,
        delivered: impl Fn(usize, bool) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("client.id", options.client_id)
            .set("linger.ms", options.linger.as_millis().to_string())
            .set("enable.idempotence", "true");
        if let Some(timeout) = options.delivery_timeout {
            config.set("message.timeout.ms", timeout.as_millis().to_string());
        }
        Ok(Self(config.create_with_context(Callback(Box::new(delivered)))?))
    }

    /// Queues a record without waiting. The callback receives `number` with its outcome.
    ///
    /// # Errors
    /// If librdkafka refuses the record, or if the queue is full ([`Error::is_queue_full`]).
    pub fn send(&self, number: usize, record: &ProducerRecord<'_>) -> Result<(), Error> {
        let record: BaseRecord<'_, [u8], [u8], usize> = BaseRecord {
            topic: record.topic,
            partition: record.partition,
            payload: record.value,
            key: record.key,
            timestamp: record.timestamp_ms,
            headers: record.owned_headers(),
            delivery_opaque: number,
        };
        self.0.send(record).map_err(|(error, _)| error.into())
    }

    /// Waits on this thread until every record has an outcome.
    ///
    /// # Errors
    /// If that takes longer than `timeout`.
    pub fn flush(&self, timeout: Duration) -> Result<(), Error> {
        Ok(self.0.flush(timeout)?)
    }
}
