//! Waiting until replicas of Redis have what was written.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fred::prelude::*;
use fred::types::config::{Options, Server};
use tokio::sync::Mutex;

use crate::error::Error;

/// A write that fewer replicas have by then counts as failed.
const WITHIN: Duration = Duration::from_secs(1);

/// How many replicas must have what a client writes; by default none. Cheap to clone; one for each client,
/// shared by all who write with it: WAIT holds up everything else on its connection.
#[derive(Clone, Default)]
pub struct Replicas(Option<Arc<Wanted>>);

struct Wanted {
    client: Client,
    count: u32,
    /// Writes that have been waited for, or are to be.
    writes: AtomicU64,
    /// How it went with the writes before this one.
    last: Mutex<(u64, Result<(), Error>)>,
}

/// The connections that something is written on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenOn(HashMap<Server, i64>);

impl Replicas {
    /// So many replicas of what this client writes.
    pub fn new(client: Client, count: u32) -> Self {
        let wanted =
            || Arc::new(Wanted { client, count, writes: AtomicU64::new(0), last: Mutex::new((0, Ok(()))) });
        Self((count > 0).then(wanted))
    }

    /// To be asked before a write.
    pub fn written_on(&self) -> WrittenOn {
        WrittenOn(self.0.as_ref().map(|wanted| wanted.client.connection_ids()).unwrap_or_default())
    }

    /// Waits until the replicas have what was written since then, and answered.
    ///
    /// # Errors
    /// [`Error::Replicas`] if they do not have it within a second, or nobody can tell, for the connection is
    /// another by now; [`Error::Redis`] if Redis does not answer.
    pub async fn have(&self, written_on: WrittenOn) -> Result<(), Error> {
        let Some(wanted) = &self.0 else { return Ok(()) };
        let ours = wanted.writes.fetch_add(1, Ordering::SeqCst);
        let mut last = wanted.last.lock().await;
        if last.0 <= ours {
            let before = wanted.writes.load(Ordering::SeqCst);
            *last = (before, wanted.wait().await);
        }
        last.1.clone()?;
        drop(last);
        // A primary of a moment ago may have it, and who is asked now knows nothing of that.
        if self.written_on() == written_on {
            Ok(())
        } else {
            Err(Error::Replicas { wanted: wanted.count, have: 0 })
        }
    }
}

impl Wanted {
    async fn wait(&self) -> Result<(), Error> {
        // On this connection or not at all.
        let options = Options { max_attempts: Some(1), fail_fast: true, ..Options::default() };
        let client = self.client.with_options(&options);
        let waited = client.wait(i64::from(self.count), WITHIN.as_millis() as i64).await;
        let have: u32 = waited.map_err(Error::redis("waiting for replicas"))?;
        if have >= self.count { Ok(()) } else { Err(Error::Replicas { wanted: self.count, have }) }
    }
}
