//! The offsets of a source (a Kafka partition) whose records go to many feeds. The head of a single feed could not hold
//! them.

use std::sync::LazyLock;
use std::time::Duration;

use fred::prelude::*;
use fred::types::scripts::Script;

use crate::error::Error;
use crate::script::run_script;

static OFFSET_HISTORY: LazyLock<Script> =
    LazyLock::new(|| Script::from_lua(include_str!("lua/offset_history.lua")));

/// The offsets that one source had reached over the last two minutes or more, as Redis holds them.
///
/// The records of such a source and its offset are different keys: on different nodes, a failover may lose the one
/// and keep the other. Redis may have lost what came last, in the feeds and mailboxes as well. So a source goes on
/// from the offset of a while ago, and its records must be such that they may come again.
#[derive(Clone)]
pub struct OffsetHistory {
    client: Client,
    key: String,
    source: String,
}

/// How far a source has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// The offset to go on from: the newest one of the requested time before `newest` was reached.
    pub resume: i64,
    /// The newest offset.
    pub newest: i64,
}

impl OffsetHistory {
    /// Names the history of a source. Redis is not asked for anything yet.
    pub fn new(client: Client, source: &str) -> Self {
        Self { client, key: format!("tutti:positions:{source}"), source: source.to_owned() }
    }

    /// Returns the newest offset of the source and the one that it had reached `ago` before that, or its oldest one
    /// if it does not go back so far. Returns `None` if Redis does not know the source.
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer.
    pub async fn read(&self, ago: Duration) -> Result<Option<Offsets>, Error> {
        let found = self.run("read", ago.as_micros() as i64).await?;
        Ok(match found[..] {
            [resume, newest] => Some(Offsets { resume, newest }),
            _ => None,
        })
    }

    /// Adds an offset. To be called once a second at most, since 128 offsets are kept. Returns whether the offset was
    /// added: nothing is added to a history that has not begun, or that Redis has lost.
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer.
    pub async fn write(&self, offset: i64) -> Result<bool, Error> {
        Ok(!self.run("write", offset).await?.is_empty())
    }

    /// Begins the history at an offset. Clears what was there before.
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer.
    pub async fn begin(&self, offset: i64) -> Result<(), Error> {
        self.run("begin", offset).await.map(drop)
    }

    async fn run(&self, what: &str, number: i64) -> Result<Vec<i64>, Error> {
        let args: Vec<Value> = vec![what.into(), number.into()];
        run_script(&self.client, &OFFSET_HISTORY, self.key.as_str(), args)
            .await
            .map_err(Error::redis(format!("the history of offsets of {}: {what}", self.source)))
    }
}
