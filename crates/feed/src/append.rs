//! Appending to a feed.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use fred::prelude::*;
use fred::types::MultipleKeys;
use fred::types::scripts::Script;

use crate::error::Error;
use crate::held_back::write_note;
use crate::keys::{channel, feed_keys, head_key};
use crate::metrics::AppendMetrics;
use crate::record::Position;
use crate::replicas::Replicas;
use crate::script::run_script;

/// What all scripts that write a feed begin with: how a record is numbered, laid out and logged.
pub const RECORD_LUA: &str = include_str!("lua/record.lua");

/// The text of the script and its hash: computed once, the same for all.
static APPEND: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(concat!(include_str!("lua/record.lua"), include_str!("lua/append.lua")))
});

/// How much of a feed its log keeps.
#[derive(Clone, Copy, Debug)]
pub struct LogLimits {
    /// Entries older than this, by the feed's time, go.
    pub max_age: Duration,
    /// About this many entries at most.
    pub max_entries: u64,
    /// About this many bytes of Redis's memory at most.
    pub max_bytes: u64,
}

/// One feed, to be appended to.
#[derive(Clone)]
pub struct Feed {
    client: Client,
    name: String,
    head: String,
    keys: MultipleKeys,
    channel: String,
    limits: LogLimits,
    replicas: Replicas,
    metrics: AppendMetrics,
}

/// One record to append, and the positions of its source before and after it.
#[derive(Clone, Debug)]
pub struct Append<'a> {
    /// Where the records come from, e.g. cluster, topic and partition.
    pub source: &'a str,
    /// Where the source stands in Redis, as the caller believes.
    pub from: i64,
    /// Where it stands once this record is there.
    pub to: i64,
    /// The caller has just read that Redis does not know the source.
    pub fresh: bool,
    /// What to append; may be empty.
    pub payload: Bytes,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// It has this place in the feed.
    Appended(Position),
    /// Redis already stands at `position`, past `from`: nothing was done; go on from there.
    Duplicate {
        /// Where the source stands.
        position: i64,
    },
    /// Redis stands before `from`, or does not know the source: it lost something. Nothing was
    /// done; go back to where it stands.
    Refused {
        /// Where the source stands, if it is known.
        position: Option<i64>,
    },
}

impl Feed {
    /// A feed by its name; touches Redis only when used.
    pub fn new(client: Client, name: &str, limits: LogLimits, metrics: AppendMetrics) -> Self {
        Self {
            client,
            name: name.to_owned(),
            head: head_key(name),
            keys: feed_keys(name),
            channel: channel(name),
            limits,
            replicas: Replicas::default(),
            metrics,
        }
    }

    /// The same, but an append counts only when these replicas of Redis have it.
    #[must_use]
    pub fn with_replicas(self, replicas: Replicas) -> Self {
        Self { replicas, ..self }
    }

    /// The feed's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where a source stands in Redis; `None` if the feed does not know it.
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer.
    pub async fn position(&self, source: &str) -> Result<Option<i64>, Error> {
        self.client
            .hget(&self.head, format!("source:{source}"))
            .await
            .map_err(Error::redis(format!("reading the position of {source} in feed {}", self.name)))
    }

    /// Notes for all who follow that so many records cannot be read yet, though they lie in Kafka; 0 that none are. To
    /// be said again every few seconds, each time with another `at_ms`.
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer.
    pub async fn note_held_back(&self, records: u64, at_ms: i64) -> Result<(), Error> {
        write_note(&self.client, &self.name, records, at_ms).await
    }

    /// Appends a record if its source stands at `from`: all of it, or nothing. May be repeated
    /// after an error: what was done already is then a [`AppendOutcome::Duplicate`].
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer, [`Error::Replicas`] if too few replicas have it; the record
    /// may or may not be there then.
    pub async fn append(&self, append: Append<'_>) -> Result<AppendOutcome, Error> {
        let doing = || format!("appending to feed {} from {}", self.name, append.source);
        let bytes = append.payload.len() as u64;
        let args: Vec<Value> = vec![
            self.channel.as_str().into(),
            append.source.into(),
            append.from.into(),
            append.to.into(),
            i64::from(append.fresh).into(),
            rand::random::<u32>().into(),
            (self.limits.max_entries as i64).into(),
            (self.limits.max_age.as_micros() as i64).into(),
            (self.limits.max_bytes as i64).into(),
            append.payload.into(),
        ];
        let write = async {
            run_script(&self.client, &APPEND, self.keys.clone(), args)
                .await
                .map_err(|source| Error::Redis { doing: doing(), source })
        };
        // What is there already may be there without its replicas.
        let answer: Vec<i64> = self.replicas.write(&self.name, write).await?;
        match answer[..] {
            [1, epoch, seq, time_us] => {
                self.metrics.appended.inc();
                self.metrics.appended_bytes.inc_by(bytes);
                Ok(AppendOutcome::Appended(Position {
                    epoch: epoch as u32,
                    seq: seq as u64,
                    time_us: time_us as u64,
                }))
            }
            [0, position] => Ok(AppendOutcome::Duplicate { position }),
            [-1] => {
                self.metrics.refused.inc();
                Ok(AppendOutcome::Refused { position: None })
            }
            [-1, position] => {
                self.metrics.refused.inc();
                Ok(AppendOutcome::Refused { position: Some(position) })
            }
            _ => Err(Error::Answer { doing: doing(), answer: format!("{answer:?}") }),
        }
    }
}
