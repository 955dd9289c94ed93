//! Records of notifications: each goes to the mailboxes of its recipients.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tutti_feed::Filing;
use tutti_model::notification::{self, addresses, id_of_record};
use tutti_model::time::is_plausible;
use tutti_model::{Format, Notification};

use crate::decode::{Decoded, Decoder, Rejection};
use crate::record::RawRecord;

/// Decodes notifications. None is stale: a mailbox drops what has expired.
#[derive(Clone, Debug)]
pub(crate) struct NotificationDecoder {
    /// The partition's name in Redis. Ids of notifications that name none are made from it.
    pub(crate) source: String,
    /// The format of values whose bytes and headers do not show one.
    pub(crate) format: Format,
    /// How long a mailbox keeps a notification that does not say, and how long it keeps any at most.
    pub(crate) keep: Duration,
}

impl Decoder for NotificationDecoder {
    /// One filing for each recipient. All share one payload.
    type Part = Vec<Arc<Filing>>;

    fn decode(&self, record: RawRecord<'_>, now_ms: i64) -> Result<Decoded<Self::Part>, Rejection> {
        let mut sent = notification::decode(record.format(self.format), record.value.unwrap_or_default())?;
        let to = sent.to.take().unwrap_or_default();
        if sent.id.is_empty() {
            sent.id = id_of_record(&self.source, record.offset, record.timestamp_ms);
        }
        // A producer's clock may be wrong: nothing was sent in the future, nor in January 1970.
        let written = record.timestamp_ms.filter(|at| is_plausible(*at));
        let created_at_ms = written.unwrap_or(now_ms).clamp(0, now_ms.max(0));
        let keep = self.keep.as_secs();
        let lives = if sent.ttl_seconds == 0 { keep } else { sent.ttl_seconds.min(keep) };
        let expires_at_ms = created_at_ms + lives as i64 * 1000;
        let stored = Notification { created_at_ms, expires_at_ms, ..sent };
        let payload = bytes::Bytes::from(stored.encode_to_vec());
        let filing = |address| {
            Arc::new(Filing {
                address,
                id: stored.id.clone(),
                expires_us: expires_at_ms as u64 * 1000,
                payload: payload.clone(),
            })
        };
        Ok(Decoded::Part(addresses(&to).map(filing).collect()))
    }
}
