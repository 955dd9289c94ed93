//! A producer whose records can be read once it commits them.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::error::Error;
use crate::producer::ProducerRecord;

/// How long Kafka may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// After this Kafka aborts a transaction by itself, in milliseconds.
const TRANSACTION_TIMEOUT_MS: &str = "600000";

/// A producer with transactions. Its calls wait for Kafka on the calling thread.
pub struct TransactionalProducer(BaseProducer);

impl TransactionalProducer {
    /// Connects to the bootstrap servers, `host:port,...`, and fences earlier producers of the same id.
    ///
    /// # Errors
    /// If Kafka refuses or does not answer.
    pub fn connect(brokers: &str, transactional_id: &str) -> Result<Self, Error> {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("transactional.id", transactional_id)
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS)
            .create()?;
        producer.init_transactions(ANSWER_TIMEOUT)?;
        Ok(Self(producer))
    }

    /// Begins a transaction with one record, without headers, and waits until Kafka has it.
    ///
    /// # Errors
    /// If Kafka refuses or does not answer.
    pub fn begin(&self, first: &ProducerRecord<'_>) -> Result<(), Error> {
        self.0.begin_transaction()?;
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord {
            topic: first.topic,
            partition: first.partition,
            payload: first.value,
            key: first.key,
            timestamp: first.timestamp_ms,
            headers: None,
            delivery_opaque: (),
        };
        self.0.send(record).map_err(|(error, _)| error)?;
        Ok(self.0.flush(ANSWER_TIMEOUT)?)
    }

    /// Commits the transaction.
    ///
    /// # Errors
    /// If Kafka refuses or does not answer.
    pub fn commit(&self) -> Result<(), Error> {
        Ok(self.0.commit_transaction(ANSWER_TIMEOUT)?)
    }

    /// Aborts the transaction.
    ///
    /// # Errors
    /// If Kafka refuses or does not answer.
    pub fn abort(&self) -> Result<(), Error> {
        Ok(self.0.abort_transaction(ANSWER_TIMEOUT)?)
    }
}
