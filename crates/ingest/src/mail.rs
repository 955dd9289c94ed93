//! Notifications: the records of a partition go to many mailboxes, each of which drops what it has.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::try_join_all;
use prost::Message as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tutti_feed::{Error, Filing, Mailboxes, OffsetHistory, Offsets};
use tutti_model::Format;
use tutti_model::Notification;
use tutti_model::notification::{self, addresses, id_of_record};
use tutti_model::time::is_plausible;

use crate::batch::{Batch, Raw, Rejection};
use crate::filer::Filer;
use crate::sink::{Sink, Stored};

/// After an assignment, and when Redis was connected to anew, a partition goes on from where it stood so
/// long ago: a failover loses less.
const AGAIN: Duration = Duration::from_secs(30);
/// The position is written so often at most.
const NOTED: Duration = Duration::from_secs(1);

/// The mailboxes, as a partition's sink.
pub(crate) struct MailSink {
    pub(crate) mailboxes: Mailboxes,
    /// One for each bucket.
    pub(crate) filers: Arc<[Filer]>,
    pub(crate) history: OffsetHistory,
    pub(crate) source: String,
    pub(crate) format: Format,
    /// How long a mailbox keeps a notification that does not say.
    pub(crate) keep: Duration,
    /// How often Redis has been connected to.
    pub(crate) connection_epoch: watch::Receiver<u64>,
    pub(crate) noted: Mutex<Noted>,
}

/// What was last written to the history, and when.
#[derive(Default)]
pub(crate) struct Noted {
    position: Option<i64>,
    at: Option<Instant>,
    /// The connection under which the partition began.
    connect: u64,
}

impl MailSink {
    /// A notification as it lies in mailboxes.
    fn filings(&self, record: Raw<'_>, now_ms: i64) -> Result<Vec<Arc<Filing>>, Rejection> {
        let mut sent = notification::decode(record.format(self.format), record.value.unwrap_or_default())?;
        let to = sent.to.take().unwrap_or_default();
        if sent.id.is_empty() {
            sent.id = id_of_record(&self.source, record.offset, record.timestamp_ms);
        }
        // A producer's clock may be wrong; nothing was sent in the future, nor in January 1970.
        let written = record.timestamp_ms.filter(|at| is_plausible(*at));
        let created_at_ms = written.unwrap_or(now_ms).clamp(0, now_ms.max(0));
        let keep = self.keep.as_secs();
        let lives = if sent.ttl_seconds == 0 { keep } else { sent.ttl_seconds.min(keep) };
        let expires_at_ms = created_at_ms + lives as i64 * 1000;
        let kept = Notification { created_at_ms, expires_at_ms, ..sent };
        let payload = bytes::Bytes::from(kept.encode_to_vec());
        let filing = |address| {
            Arc::new(Filing {
                address,
                id: kept.id.clone(),
                expires_us: expires_at_ms as u64 * 1000,
                payload: payload.clone(),
            })
        };
        Ok(addresses(&to).map(filing).collect())
    }

    fn noted(&self) -> std::sync::MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Writes the position down, if it has changed and the last one is a while ago. Returns `false` if Redis
    /// has lost where the partition stands.
    async fn note(&self, position: i64) -> Result<bool, Error> {
        let due = {
            let noted = self.noted();
            noted.position != Some(position) && noted.at.is_none_or(|at| at.elapsed() >= NOTED)
        };
        if due {
            if !self.history.write(position).await? {
                return Ok(false);
            }
            self.has_noted(position);
        }
        Ok(true)
    }

    fn has_noted(&self, position: i64) {
        let mut noted = self.noted();
        (noted.position, noted.at) = (Some(position), Some(Instant::now()));
    }
}

impl Sink for MailSink {
    type Part = Vec<Arc<Filing>>;
    /// Notifications to many users go to many mailboxes: the more there are in a call, the less each costs.
    const LINGER: Duration = Duration::from_millis(10);

    fn name(&self) -> &str {
        "inbox"
    }

    fn judge(&self, record: Raw<'_>, now_ms: i64) -> Result<Option<Vec<Arc<Filing>>>, Rejection> {
        self.filings(record, now_ms).map(Some)
    }

    async fn position(&self) -> Result<Option<Offsets>, Error> {
        let connect = *self.connection_epoch.borrow();
        *self.noted() = Noted { connect, ..Noted::default() };
        self.history.read(AGAIN).await
    }

    async fn announce_gap(&self, _from: i64, to: i64, reason: &str) -> Result<bool, Error> {
        // Whom the missing notifications were for is not known.
        try_join_all((0..self.mailboxes.buckets()).map(|bucket| self.mailboxes.announce_gap(bucket, reason)))
            .await?;
        self.history.begin(to).await?;
        Ok(true)
    }

    async fn note_held_back(&self, records: u64, at_ms: i64) -> Result<(), Error> {
        // Whom they are for is not known.
        self.mailboxes.note_held_back(records, at_ms).await
    }

    async fn stands_at(&self, _: i64) -> Result<bool, Error> {
        // What is in the mailboxes is known since the last connection.
        let connect = self.noted().connect;
        Ok(*self.connection_epoch.borrow() == connect)
    }

    async fn store(&self, batch: &Batch<Vec<Arc<Filing>>>, fresh: bool) -> Result<Stored, Error> {
        if !self.stands_at(batch.from()).await? {
            return Ok(Stored::GoBack);
        }
        if fresh {
            // Before anything is filed: who takes over must not begin elsewhere.
            self.history.begin(batch.from()).await?;
            self.has_noted(batch.from());
        }
        let mut buckets: BTreeMap<u32, Vec<Arc<Filing>>> = BTreeMap::new();
        for filing in batch.parts().flatten() {
            let bucket = self.mailboxes.bucket_of(filing.address.as_bytes());
            buckets.entry(bucket).or_default().push(filing.clone());
        }
        let filing = buckets.into_iter().map(|(bucket, filings)| self.filers[bucket as usize].file(filings));
        let filed = try_join_all(filing).await?;
        if !self.note(batch.to()).await? {
            return Ok(Stored::GoBack);
        }
        Ok(Stored::At(filed.into_iter().max()))
    }
}
