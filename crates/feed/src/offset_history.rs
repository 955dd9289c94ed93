//! Where a source stands whose records go to many feeds: no one feed's head could say it.

use std::sync::LazyLock;
use std::time::Duration;

use fred::prelude::*;
use fred::types::scripts::Script;

use crate::error::Error;
use crate::script::run_script;

static OFFSET_HISTORY: LazyLock<Script> =
    LazyLock::new(|| Script::from_lua(include_str!("lua/offset_history.lua")));

/// The positions of one source over the last two minutes or more, as Redis has them. Redis may have lost
/// what came last, in the feeds too: so a source goes on from where it stood a while ago, and what it
/// brings again must do no harm.
#[derive(Clone)]
pub struct OffsetHistory {
    client: Client,
    key: String,
    source: String,
}

/// Where a source stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// Where it stood so long before.
    pub resume: i64,
    /// Where it stands.
    pub newest: i64,
}

impl OffsetHistory {
    /// Of a source; touches Redis only when used.
    pub fn new(client: Client, source: &str) -> Self {
        Self { client, key: format!("tutti:positions:{source}"), source: source.to_owned() }
    }

    /// Where the source stands, and where it stood so long before it came there (at its first place, if
    /// that is not so old); `None` if it is not known.
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

    /// Notes where it stands. At most once a second, for 128 places are kept. Returns whether it was noted:
    /// a history that has not begun, or that Redis has lost, is not written to.
    ///
    /// # Errors
    /// As [`OffsetHistory::read`].
    pub async fn write(&self, offset: i64) -> Result<bool, Error> {
        Ok(!self.run("write", offset).await?.is_empty())
    }

    /// Begins the history at a place; what was before is void.
    ///
    /// # Errors
    /// As [`OffsetHistory::read`].
    pub async fn begin(&self, offset: i64) -> Result<(), Error> {
        self.run("begin", offset).await.map(drop)
    }

    async fn run(&self, what: &str, number: i64) -> Result<Vec<i64>, Error> {
        let args: Vec<Value> = vec![what.into(), number.into()];
        run_script(&self.client, &OFFSET_HISTORY, self.key.as_str(), args)
            .await
            .map_err(Error::redis(format!("the positions of {}", self.source)))
    }
}
