//! The records of one partition, as a consumer reads them.

use futures_util::StreamExt as _;
use rdkafka::consumer::MessageStream;
use rdkafka::consumer::stream_consumer::StreamPartitionQueue;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

use crate::error::Error;
use crate::group::Membership;

/// The fetched records of one partition. librdkafka fetches no more while the queue is full and nobody reads it.
pub struct PartitionQueue(pub(crate) StreamPartitionQueue<Membership>);

impl PartitionQueue {
    /// Returns the records, one after the other. Making this costs as much as reading some records.
    pub fn records(&self) -> Records<'_> {
        Records(self.0.stream())
    }
}

/// The endless sequence of a partition's records.
pub struct Records<'a>(MessageStream<'a, Membership>);

impl<'a> Records<'a> {
    /// Waits for the next record.
    ///
    /// # Errors
    /// What librdkafka reports of this partition, such as an offset out of range.
    ///
    /// # Panics
    /// Never: a stream of librdkafka has no end.
    pub async fn next(&mut self) -> Result<ConsumerRecord<'a>, Error> {
        let next = self.0.next().await.expect("a stream of librdkafka has no end");
        Ok(ConsumerRecord(next?))
    }
}

/// A record in the memory of librdkafka, which is freed when this is dropped.
#[derive(Debug)]
pub struct ConsumerRecord<'a>(pub(crate) BorrowedMessage<'a>);

impl ConsumerRecord<'_> {
    /// Returns the offset in the partition.
    pub fn offset(&self) -> i64 {
        self.0.offset()
    }

    /// Returns the key, or `None` if it is null.
    pub fn key(&self) -> Option<&[u8]> {
        self.0.key()
    }

    /// Returns the value, or `None` if it is null: a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        self.0.payload()
    }

    /// Returns the timestamp in milliseconds since 1970, or `None` if the record has none.
    pub fn timestamp_ms(&self) -> Option<i64> {
        self.0.timestamp().to_millis()
    }

    /// Returns the first header of a name, in any case. librdkafka parses the headers at the first call.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.0.headers()?.iter().find(|header| header.key.eq_ignore_ascii_case(name))?.value
    }
}
