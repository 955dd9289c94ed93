//! The sink of fixes and events: one feed.

use std::time::Duration;

use bytes::Bytes;
use tutti_feed::{Append, AppendOutcome, Error, Feed, Offsets};
use tutti_model::Gap;

use crate::batch::Batch;
use crate::sink::{Sink, Stored};

/// Appends a partition's records to one feed. The feed's head holds the partition's position, so a record is appended
/// once however often it is delivered.
pub(crate) struct FeedSink {
    pub(crate) feed: Feed,
    /// The partition's name in Redis.
    pub(crate) source: String,
    /// Encodes the announcement of records that are missing in Kafka.
    pub(crate) encode_gap: fn(Gap) -> Vec<u8>,
}

impl Sink for FeedSink {
    /// Protobuf. The concatenation of parts is one payload.
    type Part = Vec<u8>;

    const LINGER: Duration = Duration::from_millis(5);

    fn name(&self) -> &str {
        self.feed.name()
    }

    async fn position(&self) -> Result<Option<Offsets>, Error> {
        let position = self.feed.position(&self.source).await?;
        Ok(position.map(|position| Offsets { resume: position, newest: position }))
    }

    async fn announce_gap(&self, from: i64, to: i64, reason: &str) -> Result<bool, Error> {
        let gap = Gap { source: self.source.clone(), from, to, reason: reason.to_owned() };
        let payload = (self.encode_gap)(gap).into();
        let append = Append { source: &self.source, from, to, fresh: false, payload };
        Ok(matches!(self.feed.append(append).await?, AppendOutcome::Appended(_)))
    }

    async fn note_held_back(&self, records: u64, at_ms: i64) -> Result<(), Error> {
        self.feed.note_held_back(records, at_ms).await
    }

    async fn stands_at(&self, position: i64) -> Result<bool, Error> {
        Ok(self.feed.position(&self.source).await? == Some(position))
    }

    async fn store(&self, batch: &Batch<Vec<u8>>, is_new: bool) -> Result<Stored, Error> {
        let payload: Bytes = batch.parts().map(Vec::as_slice).collect::<Vec<_>>().concat().into();
        let append =
            Append { source: &self.source, from: batch.from(), to: batch.to(), fresh: is_new, payload };
        Ok(match self.feed.append(append).await? {
            AppendOutcome::Appended(place) => Stored::At(Some(place.time_us)),
            AppendOutcome::Duplicate { position } => Stored::Duplicate(position),
            AppendOutcome::Refused { .. } => Stored::GoBack,
        })
    }
}
