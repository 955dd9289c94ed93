//! A record as Kafka has it, apart from the client library.

use tutti_kafka::ConsumerRecord;
use tutti_model::Format;

/// The headers of a record. The client library parses them at the first call.
pub(crate) trait Headers: std::fmt::Debug {
    /// Returns the value of the first header of a name, in any case.
    fn header(&self, name: &str) -> Option<&[u8]>;
}

impl Headers for ConsumerRecord<'_> {
    fn header(&self, name: &str) -> Option<&[u8]> {
        ConsumerRecord::header(self, name)
    }
}

/// The parts of a record that decoders read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawRecord<'a> {
    pub(crate) offset: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: &'a dyn Headers,
    /// Milliseconds since 1970. `None` if the record has no timestamp.
    pub(crate) timestamp_ms: Option<i64>,
}

impl<'a> From<&'a ConsumerRecord<'_>> for RawRecord<'a> {
    fn from(record: &'a ConsumerRecord<'_>) -> Self {
        Self {
            offset: record.offset(),
            key: record.key(),
            value: record.value(),
            headers: record,
            timestamp_ms: record.timestamp_ms(),
        }
    }
}

impl RawRecord<'_> {
    /// Returns the format of the value: the one that its first bytes show, else the one that the header `content-type`
    /// names, else the route's.
    pub(crate) fn format(&self, of_route: Format) -> Format {
        let by_header = || self.headers.header("content-type").and_then(Format::of_content_type);
        self.value.and_then(Format::of_value).or_else(by_header).unwrap_or(of_route)
    }
}
