//! Where a partition's records go.

use std::time::Duration;

use bytes::Bytes;
use tutti_feed::{Append, AppendOutcome, Error, Feed, Offsets};
use tutti_model::Gap;

use crate::batch::{Batch, Judge, Raw, Rejection};

/// What became of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stored {
    /// It is there, since this time of Redis's, microseconds since 1970; `None` if there was nothing to do.
    At(Option<u64>),
    /// Redis stands at this position already.
    Duplicate(i64),
    /// Redis may have lost something: go back to where it stands.
    GoBack,
}

/// A place for the records of one partition.
pub(crate) trait Sink: Send + Sync {
    /// What a record brings.
    type Part: Send;

    /// Its name, for logs.
    fn name(&self) -> &str;

    /// A partition appends once in this time, if not more than a batch comes: that goes together.
    const LINGER: Duration;

    /// What a record brings; `None` if it is too old to count.
    ///
    /// # Errors
    /// Why it is not valid.
    fn judge(&self, record: Raw<'_>, now_ms: i64) -> Result<Option<Self::Part>, Rejection>;

    /// Where the partition stands; `None` if Redis does not know it.
    fn position(&self) -> impl Future<Output = Result<Option<Offsets>, Error>> + Send;

    /// Says to all who follow that records are missing for good, and goes on after them; whether it was
    /// said by us.
    fn announce_gap(
        &self,
        from: i64,
        to: i64,
        reason: &str,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Notes for all who follow that so many records of the partition cannot be read yet; 0 that none are.
    fn note_held_back(&self, records: u64, at_ms: i64) -> impl Future<Output = Result<(), Error>> + Send;

    /// Whether Redis still has all that was stored up to this position, as far as can be told without a write.
    fn stands_at(&self, position: i64) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Stores a batch, which may have no records: then only time has passed. `fresh` says that Redis did
    /// not know the partition. May be repeated.
    fn store(
        &self,
        batch: &Batch<Self::Part>,
        fresh: bool,
    ) -> impl Future<Output = Result<Stored, Error>> + Send;
}

/// All records go to one feed, whose head has the partition's position.
pub(crate) struct FeedSink {
    pub(crate) feed: Feed,
    pub(crate) source: String,
    pub(crate) judge: Judge,
}

impl Sink for FeedSink {
    type Part = Vec<u8>;
    const LINGER: Duration = Duration::from_millis(5);

    fn name(&self) -> &str {
        self.feed.name()
    }

    fn judge(&self, record: Raw<'_>, now_ms: i64) -> Result<Option<Vec<u8>>, Rejection> {
        self.judge.judge(record, now_ms)
    }

    async fn position(&self) -> Result<Option<Offsets>, Error> {
        let position = self.feed.position(&self.source).await?;
        Ok(position.map(|position| Offsets { resume: position, newest: position }))
    }

    async fn announce_gap(&self, from: i64, to: i64, reason: &str) -> Result<bool, Error> {
        let gap = Gap { source: self.source.clone(), from, to, reason: reason.to_owned() };
        let payload = self.judge.gap(gap).into();
        let append = Append { source: &self.source, from, to, fresh: false, payload };
        Ok(matches!(self.feed.append(append).await?, AppendOutcome::Appended(_)))
    }

    async fn note_held_back(&self, records: u64, at_ms: i64) -> Result<(), Error> {
        self.feed.note_held_back(records, at_ms).await
    }

    async fn stands_at(&self, position: i64) -> Result<bool, Error> {
        Ok(self.feed.position(&self.source).await? == Some(position))
    }

    async fn store(&self, batch: &Batch<Vec<u8>>, fresh: bool) -> Result<Stored, Error> {
        // Parts are protobuf whose concatenation is one payload.
        let payload: Bytes = batch.parts().map(Vec::as_slice).collect::<Vec<_>>().concat().into();
        let append = Append { source: &self.source, from: batch.from(), to: batch.to(), fresh, payload };
        Ok(match self.feed.append(append).await? {
            AppendOutcome::Appended(place) => Stored::At(Some(place.time_us)),
            AppendOutcome::Duplicate { position } => Stored::Duplicate(position),
            AppendOutcome::Refused { .. } => Stored::GoBack,
        })
    }
}
