//! The mailboxes of one Redis, and how their scripts are called.

use std::fmt::Debug;
use std::time::Duration;

use fred::prelude::*;
use fred::types::scripts::Script;
use futures_util::future::try_join_all;
use sha1::{Digest as _, Sha1};

use crate::append::LogLimits;
use crate::error::Error;
use crate::held_back::write_note;
use crate::keys::{channel, feed_keys};
use crate::metrics::MailboxMetrics;
use crate::replicas::Replicas;
use crate::script::run_script;

/// What the log of a bucket keeps. It serves followers that missed a message; readers that were away read the
/// mailboxes.
const LOG: LogLimits =
    LogLimits { max_age: Duration::from_secs(300), max_entries: 1_000_000, max_bytes: 16 << 20 };
/// Bytes that the log of a bucket keeps at least, however many buckets there are.
const MIN_LOG_BYTES: u64 = 1 << 20;

/// Joins the Lua that scripts of mailboxes begin with and the Lua of one of them.
macro_rules! mailbox_script {
    ($file:literal) => {
        std::sync::LazyLock::new(|| {
            fred::types::scripts::Script::from_lua(concat!(
                include_str!("../lua/record.lua"),
                include_str!("../lua/mailbox.lua"),
                include_str!($file)
            ))
        })
    };
}
pub(super) use mailbox_script;

/// How much a mailbox keeps. The oldest items go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailboxLimits {
    /// Items that a mailbox keeps at most.
    pub items: u32,
    /// Bytes of items that a mailbox keeps at most. The newest item is always kept.
    pub bytes: u32,
    /// Age at which an item leaves its mailbox.
    pub age: Duration,
}

/// The mailboxes of one Redis, spread over a number of feeds, the *buckets*. Cheap to clone.
#[derive(Clone)]
pub struct Mailboxes {
    client: Client,
    name: &'static str,
    buckets: u32,
    limits: MailboxLimits,
    replicas: Replicas,
    pub(super) metrics: MailboxMetrics,
}

impl Mailboxes {
    /// Names mailboxes in `buckets` feeds, `<name>.0`, `<name>.1` and so on. Redis is not asked for anything yet.
    pub fn new(
        client: Client,
        name: &'static str,
        buckets: u32,
        limits: MailboxLimits,
        metrics: MailboxMetrics,
    ) -> Self {
        Self { client, name, buckets, limits, replicas: Replicas::default(), metrics }
    }

    /// Has a change of a mailbox count only once these replicas of Redis have it.
    #[must_use]
    pub fn with_replicas(self, replicas: Replicas) -> Self {
        Self { replicas, ..self }
    }

    /// Returns the bucket of an address: the first four bytes of the SHA-1 of the address, modulo the number of
    /// buckets.
    pub fn bucket_of(&self, address: &[u8]) -> u32 {
        let hash = Sha1::digest(address);
        u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) % self.buckets
    }

    /// Returns the number of buckets.
    pub fn buckets(&self) -> u32 {
        self.buckets
    }

    /// Returns the name of the feed of a bucket.
    pub fn feed(&self, bucket: u32) -> String {
        format!("{}.{bucket}", self.name)
    }

    /// Returns the names of the feeds of all buckets.
    pub fn feeds(&self) -> Vec<String> {
        (0..self.buckets).map(|bucket| self.feed(bucket)).collect()
    }

    /// Notes in the feeds of all buckets how many records cannot be read yet, as [`Feed::note_held_back`] does in
    /// one.
    ///
    /// [`Feed::note_held_back`]: crate::Feed::note_held_back
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer.
    pub async fn note_held_back(&self, records: u64, at_ms: i64) -> Result<(), Error> {
        let feeds = self.feeds();
        try_join_all(feeds.iter().map(|feed| write_note(&self.client, feed, records, at_ms))).await?;
        Ok(())
    }

    /// Runs a script that changes something, and waits until the replicas have the change. `doing` says for an error
    /// what was being done.
    pub(super) async fn write<T: FromValue>(
        &self,
        script: &Script,
        bucket: u32,
        words: Vec<Value>,
        doing: impl FnOnce() -> String,
    ) -> Result<T, Error> {
        let write = self.run(script, bucket, words, doing);
        self.replicas.write(&self.feed(bucket), write).await
    }

    /// Runs a script. `words` are the arguments that it does not share with the other scripts.
    pub(super) async fn run<T: FromValue>(
        &self,
        script: &Script,
        bucket: u32,
        words: Vec<Value>,
        doing: impl FnOnce() -> String,
    ) -> Result<T, Error> {
        let feed = self.feed(bucket);
        let log_bytes = (LOG.max_bytes / u64::from(self.buckets)).max(MIN_LOG_BYTES);
        let mut args: Vec<Value> = vec![
            channel(&feed).into(),
            rand::random::<u32>().into(),
            (LOG.max_entries as i64).into(),
            (LOG.max_age.as_micros() as i64).into(),
            (log_bytes as i64).into(),
            self.limits.items.into(),
            self.limits.bytes.into(),
            (self.limits.age.as_micros() as i64).into(),
        ];
        args.extend(words);
        run_script(&self.client, script, feed_keys(&feed), args)
            .await
            .map_err(|source| Error::Redis { doing: doing(), source })
    }
}

/// Returns the error for an answer that no version of the scripts gives.
pub(super) fn unexpected(doing: impl FnOnce() -> String, answer: &impl Debug) -> Error {
    Error::Answer { doing: doing(), answer: format!("{answer:?}") }
}
