//! Filing items in mailboxes.

use std::sync::LazyLock;

use bytes::Bytes;
use fred::prelude::Value;
use fred::types::scripts::Script;
use sha1::{Digest as _, Sha1};

use super::mailboxes::{Mailboxes, mailbox_script, unexpected};
use crate::error::Error;

static FILE: LazyLock<Script> = mailbox_script!("../lua/file.lua");

/// An item to be filed.
#[derive(Clone, Debug)]
pub struct Filing {
    /// Address of the mailbox; 1 to 65,535 bytes.
    pub address: String,
    /// Id of the item, at most 65,535 bytes. The same id is filed once in 24 hours, and once for as long as its item
    /// is there.
    pub id: String,
    /// When the item expires, microseconds since 1970.
    pub expires_us: u64,
    /// Content of the item.
    pub payload: Bytes,
}

/// What became of the items of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileOutcome {
    /// Number of items that were filed.
    pub filed: u64,
    /// Number of items that were filed before.
    pub known: u64,
    /// Number of items that had expired.
    pub expired: u64,
    /// Time of Redis, microseconds since 1970.
    pub time_us: u64,
}

impl Mailboxes {
    /// Files items of one bucket, each once, and publishes records about them. May be repeated.
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer, [`Error::Replicas`] if too few replicas have the items. In both
    /// cases all, some or none of the items may be filed.
    pub async fn file(
        &self,
        bucket: u32,
        filings: impl IntoIterator<Item = &Filing>,
    ) -> Result<FileOutcome, Error> {
        let mut words = Vec::new();
        for filing in filings {
            words.push(Value::from(filing.address.as_str()));
            words.push(filing.id.as_str().into());
            words.push(id_hash(&filing.id).into());
            words.push((filing.expires_us.min(i64::MAX as u64) as i64).into());
            words.push(filing.payload.clone().into());
        }
        let doing = || format!("filing in {}", self.feed(bucket));
        let answer: Vec<u64> = self.write(&FILE, bucket, words, doing).await?;
        let [filed, known, expired, time_us] = answer[..] else { return Err(unexpected(doing, &answer)) };
        self.metrics.filed.inc_by(filed);
        self.metrics.known.inc_by(known);
        self.metrics.expired.inc_by(expired);
        Ok(FileOutcome { filed, known, expired, time_us })
    }

    /// Tells all followers of a bucket that something is missing for good, and why.
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer, [`Error::Replicas`] if too few replicas have the record. In both
    /// cases followers may have been told.
    pub async fn announce_gap(&self, bucket: u32, reason: &str) -> Result<(), Error> {
        let words: Vec<Value> = vec!["".into(), "".into(), 0.into(), 0.into(), reason.into()];
        let doing = || format!("announcing a gap in {}", self.feed(bucket));
        let _: Vec<u64> = self.write(&FILE, bucket, words, doing).await?;
        Ok(())
    }
}

/// Returns the hash by which Redis knows an id: 8 bytes of a set, where the id itself would take about 50.
fn id_hash(id: &str) -> i64 {
    let hash = Sha1::digest(id.as_bytes());
    i64::from_be_bytes([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]])
}
