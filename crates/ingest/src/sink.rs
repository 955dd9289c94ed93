//! Where a partition's records go in Redis.

use std::time::Duration;

use tutti_feed::{Error, Offsets};

use crate::batch::Batch;

/// The outcome of storing a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stored {
    /// Redis has the batch, since this time of Redis in microseconds since 1970. `None` if there was nothing to write.
    At(Option<u64>),
    /// Redis already has the records before this position.
    Duplicate(i64),
    /// Redis may have lost records: the partition must go back to where Redis stands.
    GoBack,
}

/// Stores the records of one partition.
pub(crate) trait Sink: Send + Sync {
    /// What is stored of one record.
    type Part: Send;

    /// How long a partition collects records before it stores a batch that is not full.
    const LINGER: Duration;

    /// Returns the sink's name, for logs.
    fn name(&self) -> &str;

    /// Returns where the partition stands, or `None` if Redis does not know it.
    fn position(&self) -> impl Future<Output = Result<Option<Offsets>, Error>> + Send;

    /// Announces to all followers that the records from `from` to `to` are lost, and moves the position to `to`. Returns
    /// whether this call made the announcement, and not another replica.
    fn announce_gap(
        &self,
        from: i64,
        to: i64,
        reason: &str,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Tells all followers how many records of the partition cannot be read yet. `at_ms` is Redis's time in milliseconds
    /// since 1970.
    fn note_held_back(&self, records: u64, at_ms: i64) -> impl Future<Output = Result<(), Error>> + Send;

    /// Returns whether Redis still has everything that was stored before `position`, as far as a read can tell.
    fn stands_at(&self, position: i64) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Stores a batch. One without records only moves the feed's time. `is_new` says that Redis did not know the
    /// partition. A call that failed may be repeated.
    fn store(
        &self,
        batch: &Batch<Self::Part>,
        is_new: bool,
    ) -> impl Future<Output = Result<Stored, Error>> + Send;
}
