//! The sink of notifications: many mailboxes, each of which drops what it already has.
//!
//! The position of a partition is written to the history only after the whole batch is filed, so that a crash in between
//! repeats records and loses none.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::watch;
use tokio::time::Instant;
use tutti_feed::{Error, Filing, Mailboxes, OffsetHistory, Offsets};

use crate::batch::Batch;
use crate::filer::Filer;
use crate::sink::{Sink, Stored};

/// How far a partition goes back after an assignment and after a new connection to Redis. A failover of Redis loses less
/// than this.
const REPLAY: Duration = Duration::from_secs(30);
/// The position is written to the history at most once in this time.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// Files a partition's notifications in the mailboxes of their recipients. A history beside them holds the partition's
/// position at several times.
pub(crate) struct MailboxSink {
    mailboxes: Mailboxes,
    /// One for each bucket of the mailboxes.
    filers: Arc<[Filer]>,
    history: OffsetHistory,
    /// Counts the connections to Redis.
    connection_epoch: watch::Receiver<u64>,
    progress: Mutex<Progress>,
}

/// What the history holds, and since when.
#[derive(Default)]
struct Progress {
    written: Option<i64>,
    written_at: Option<Instant>,
    /// The connection to Redis that was in use when the partition's position was read.
    connection: u64,
}

impl MailboxSink {
    pub(crate) fn new(
        mailboxes: Mailboxes,
        filers: Arc<[Filer]>,
        history: OffsetHistory,
        connection_epoch: watch::Receiver<u64>,
    ) -> Self {
        Self { mailboxes, filers, history, connection_epoch, progress: Mutex::default() }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether Redis has been connected to again since the partition's position was read. What a failover lost
    /// is not known from the mailboxes themselves.
    fn has_reconnected(&self) -> bool {
        *self.connection_epoch.borrow() != self.progress().connection
    }

    /// Writes the position to the history if it has changed and the last write is a while ago. Returns `false` if Redis
    /// has lost the history.
    async fn write(&self, position: i64) -> Result<bool, Error> {
        let is_due = {
            let progress = self.progress();
            progress.written != Some(position)
                && progress.written_at.is_none_or(|at| at.elapsed() >= WRITE_INTERVAL)
        };
        if is_due {
            if !self.history.write(position).await? {
                return Ok(false);
            }
            self.has_written(position);
        }
        Ok(true)
    }

    fn has_written(&self, position: i64) {
        let mut progress = self.progress();
        (progress.written, progress.written_at) = (Some(position), Some(Instant::now()));
    }
}

impl Sink for MailboxSink {
    /// One filing for each recipient of a notification.
    type Part = Vec<Arc<Filing>>;

    /// Notifications to many users go to many mailboxes. The more of them a call to Redis has, the less each costs.
    const LINGER: Duration = Duration::from_millis(10);

    fn name(&self) -> &str {
        "inbox"
    }

    async fn position(&self) -> Result<Option<Offsets>, Error> {
        let connection = *self.connection_epoch.borrow();
        *self.progress() = Progress { connection, ..Progress::default() };
        self.history.read(REPLAY).await
    }

    async fn announce_gap(&self, _from: i64, to: i64, reason: &str) -> Result<bool, Error> {
        // The recipients of the missing notifications are not known, so all mailboxes are told.
        try_join_all((0..self.mailboxes.buckets()).map(|bucket| self.mailboxes.announce_gap(bucket, reason)))
            .await?;
        self.history.begin(to).await?;
        Ok(true)
    }

    async fn note_held_back(&self, records: u64, at_ms: i64) -> Result<(), Error> {
        // The recipients are not known, so all mailboxes are told.
        self.mailboxes.note_held_back(records, at_ms).await
    }

    async fn stands_at(&self, _position: i64) -> Result<bool, Error> {
        Ok(!self.has_reconnected())
    }

    async fn store(&self, batch: &Batch<Vec<Arc<Filing>>>, is_new: bool) -> Result<Stored, Error> {
        if self.has_reconnected() {
            return Ok(Stored::GoBack);
        }
        if is_new {
            // Before anything is filed: a replica that takes the partition over must not begin elsewhere.
            self.history.begin(batch.from()).await?;
            self.has_written(batch.from());
        }
        let mut buckets: BTreeMap<u32, Vec<Arc<Filing>>> = BTreeMap::new();
        for filing in batch.parts().flatten() {
            let bucket = self.mailboxes.bucket_of(filing.address.as_bytes());
            buckets.entry(bucket).or_default().push(filing.clone());
        }
        let filing = buckets.into_iter().map(|(bucket, filings)| self.filers[bucket as usize].file(filings));
        let filed = try_join_all(filing).await?;
        if !self.write(batch.to()).await? {
            return Ok(Stored::GoBack);
        }
        Ok(Stored::At(filed.into_iter().max()))
    }
}
