//! Readers without a consumer group.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedHeaders, Headers as _, Message as _};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;

use crate::error::Error;
use crate::records::ConsumerRecord;

/// librdkafka wants the name of a group also from readers that join none.
const UNUSED_GROUP: &str = "tutti-reader";

/// Reads one partition from its first record on.
pub struct PartitionReader(BaseConsumer);

impl PartitionReader {
    /// Connects to the bootstrap servers, `host:port,...`, and starts fetching.
    ///
    /// # Errors
    /// If librdkafka cannot make a client.
    pub fn start(brokers: &str, topic: &str, partition: i32) -> Result<Self, Error> {
        let reader = Self(consumer(brokers)?);
        reader.fetch(topic, partition, Offset::Beginning)?;
        Ok(reader)
    }

    /// Waits on this thread for the next record. Returns `None` if none comes within `timeout`.
    ///
    /// # Errors
    /// What librdkafka reports of the partition.
    pub fn poll(&self, timeout: Duration) -> Result<Option<ConsumerRecord<'_>>, Error> {
        Ok(self.0.poll(timeout).transpose()?.map(ConsumerRecord))
    }

    fn fetch(&self, topic: &str, partition: i32, from: Offset) -> Result<(), Error> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, from)?;
        Ok(self.0.assign(&list)?)
    }
}

/// A record, copied out of the memory of librdkafka.
#[derive(Clone, Debug)]
pub struct StoredRecord {
    /// The value. `None` is null: a tombstone.
    pub value: Option<Vec<u8>>,
    /// Names and values of headers.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// Reads all records of a topic on this thread, from the first to the last that it has now, partition by partition.
///
/// # Errors
/// If Kafka does not answer a question, or does not send the next record, within `timeout`.
pub fn read_topic(brokers: &str, topic: &str, timeout: Duration) -> Result<Vec<StoredRecord>, Error> {
    let reader = PartitionReader(consumer(brokers)?);
    let metadata = reader.0.fetch_metadata(Some(topic), timeout)?;
    let partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
    let mut all = Vec::new();
    for partition in partitions.map(MetadataPartition::id) {
        let (start, end) = reader.0.fetch_watermarks(topic, partition, timeout)?;
        if start < end {
            reader.fetch(topic, partition, Offset::Offset(start))?;
        }
        let mut position = start;
        while position < end {
            let late = KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
            let record = reader.poll(timeout)?.ok_or(late)?;
            position = record.offset() + 1;
            all.push(StoredRecord::from(&record));
        }
    }
    Ok(all)
}

impl From<&ConsumerRecord<'_>> for StoredRecord {
    fn from(record: &ConsumerRecord<'_>) -> Self {
        let mut headers = Vec::new();
        for header in record.0.headers().into_iter().flat_map(BorrowedHeaders::iter) {
            headers.push((header.key.to_owned(), header.value.unwrap_or_default().to_vec()));
        }
        Self { value: record.value().map(<[u8]>::to_vec), headers }
    }
}

fn consumer(brokers: &str) -> Result<BaseConsumer, Error> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", UNUSED_GROUP).set("enable.auto.commit", "false");
    Ok(config.create()?)
}
