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

/// The Lua that all scripts that write a feed begin with: how a record is numbered, laid out, logged and published.
pub const RECORD_LUA: &str = include_str!("lua/record.lua");

static APPEND: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(concat!(include_str!("lua/record.lua"), include_str!("lua/append.lua")))
});

/// First number of the answer of `append.lua`: the record was appended.
const APPENDED: i64 = 1;
/// First number of the answer of `append.lua`: the source is already past the record.
const DUPLICATE: i64 = 0;
/// First number of the answer of `append.lua`: the source is before the record, or unknown.
const REFUSED: i64 = -1;

/// How much the log of a feed keeps.
#[derive(Clone, Copy, Debug)]
pub struct LogLimits {
    /// Age at which a record leaves the log, by the time of the feed.
    pub max_age: Duration,
    /// Records that the log keeps at most, approximately.
    pub max_entries: u64,
    /// Bytes of Redis's memory that the log takes at most, approximately.
    pub max_bytes: u64,
}

/// Appends records to one feed. Cheap to clone.
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

/// A record to append, with the positions of its source before and after it.
#[derive(Clone, Debug)]
pub struct Append<'a> {
    /// Name of the source of the records, for example of a partition: cluster, topic and number.
    pub source: &'a str,
    /// Position of the source in Redis, as the caller believes.
    pub from: i64,
    /// Position of the source once this record is appended.
    pub to: i64,
    /// The caller has just read that the feed does not know the source.
    pub fresh: bool,
    /// Content of the record. May be empty.
    pub payload: Bytes,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// The record was appended at this position of the feed.
    Appended(Position),
    /// The source is already past `from`, so nothing was done. The caller goes on from `position`.
    Duplicate {
        /// Position of the source.
        position: i64,
    },
    /// The source is before `from`, or the feed does not know it: Redis has lost something. Nothing was done. The
    /// caller goes back to `position`.
    Refused {
        /// Position of the source, if the feed knows it.
        position: Option<i64>,
    },
}

impl Feed {
    /// Names a feed. Redis is not asked for anything yet.
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

    /// Has an append count only once these replicas of Redis have it.
    #[must_use]
    pub fn with_replicas(self, replicas: Replicas) -> Self {
        Self { replicas, ..self }
    }

    /// Returns the name of the feed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the position of a source, or `None` if the feed does not know the source.
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer.
    pub async fn position(&self, source: &str) -> Result<Option<i64>, Error> {
        self.client
            .hget(&self.head, format!("source:{source}"))
            .await
            .map_err(Error::redis(format!("reading the position of {source} in feed {}", self.name)))
    }

    /// Tells all followers how many records lie in Kafka and cannot be read yet, for example behind an open
    /// transaction. Must be repeated every few seconds, each time with another `at_ms`, until `records` is 0.
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer.
    pub async fn note_held_back(&self, records: u64, at_ms: i64) -> Result<(), Error> {
        write_note(&self.client, &self.name, records, at_ms).await
    }

    /// Appends a record if its source stands at `append.from`, and moves the source to `append.to`, in one atomic
    /// step. May be repeated after an error: a record that was appended before is then a
    /// [`AppendOutcome::Duplicate`].
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer, [`Error::Replicas`] if too few replicas have the record. In both
    /// cases the record may or may not have been appended.
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
        // Duplicates wait for the replicas as well: the earlier attempt may have failed to reach them.
        let answer: Vec<i64> = self.replicas.write(&self.name, write).await?;
        match answer[..] {
            [APPENDED, epoch, seq, time_us] => {
                self.metrics.appended.inc();
                self.metrics.appended_bytes.inc_by(bytes);
                Ok(AppendOutcome::Appended(Position {
                    epoch: epoch as u32,
                    seq: seq as u64,
                    time_us: time_us as u64,
                }))
            }
            [DUPLICATE, position] => Ok(AppendOutcome::Duplicate { position }),
            [REFUSED] => {
                self.metrics.refused.inc();
                Ok(AppendOutcome::Refused { position: None })
            }
            [REFUSED, position] => {
                self.metrics.refused.inc();
                Ok(AppendOutcome::Refused { position: Some(position) })
            }
            _ => Err(Error::Answer { doing: doing(), answer: format!("{answer:?}") }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lua_constants::lua_number;

    #[test]
    fn the_script_answers_with_the_same_numbers() {
        let number = |name| lua_number(include_str!("lua/append.lua"), name);
        assert_eq!(
            [number("APPENDED"), number("DUPLICATE"), number("REFUSED")],
            [APPENDED, DUPLICATE, REFUSED]
        );
    }
}
