//! Waiting until replicas of Redis have what was written.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use fred::prelude::*;
use fred::types::cluster::ClusterRouting;
use fred::types::config::{Options, Server};
use tokio::sync::Mutex;

use crate::error::Error;
use crate::keys::head_key;

/// A write that fewer replicas have by then counts as failed.
const WITHIN: Duration = Duration::from_secs(1);

/// How many replicas must have what a client writes; by default none. Cheap to clone; one for each client,
/// shared by all who write with it: WAIT holds up everything else on its connection.
#[derive(Clone, Default)]
pub struct Replicas(Option<Arc<Wanted>>);

struct Wanted {
    client: Client,
    count: u32,
    /// Who waits for the replicas of which server.
    lines: std::sync::Mutex<HashMap<Server, Arc<Line>>>,
}

#[derive(Default)]
struct Line {
    /// Writes that have been waited for, or are to be.
    writes: AtomicU64,
    /// How it went with the writes before this one.
    last: Mutex<Option<(u64, Result<(), Error>)>>,
}

impl Replicas {
    /// So many replicas of what this client writes.
    pub fn new(client: Client, count: u32) -> Self {
        Self((count > 0).then(|| Arc::new(Wanted { client, count, lines: std::sync::Mutex::default() })))
    }

    /// Writes to a feed, and waits until the replicas have it.
    ///
    /// # Errors
    /// Those of the write; [`Error::Replicas`] if they do not have it within a second, or nobody can tell, for the
    /// connection is another by then; [`Error::Redis`] if Redis does not answer.
    pub async fn write<T, E: From<Error>>(
        &self,
        feed: &str,
        write: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let Some(wanted) = &self.0 else { return write.await };
        let key = head_key(feed);
        let before = wanted.connection_of(&key);
        let written = write.await?;
        let nobody_knows = Err(Error::Replicas { wanted: wanted.count, have: 0 }.into());
        let Some((server, _)) = &before else { return nobody_knows };
        wanted.have(server).await?;
        // A primary of a moment ago may have it, and who is asked now knows nothing of that; or the key has gone
        // to another node.
        if wanted.connection_of(&key) == before { Ok(written) } else { nobody_knows }
    }
}

impl Wanted {
    /// Waits until the replicas of a server have what it has answered so far.
    async fn have(&self, server: &Server) -> Result<(), Error> {
        let line = self.line(server);
        let ours = line.writes.fetch_add(1, Ordering::SeqCst);
        let mut last = line.last.lock().await;
        if let Some((before, how)) = &*last
            && *before > ours
        {
            return how.clone();
        }
        let before = line.writes.load(Ordering::SeqCst);
        let how = self.wait(server).await;
        *last = Some((before, how.clone()));
        how
    }

    /// The connection on which a key is written.
    fn connection_of(&self, key: &str) -> Option<(Server, i64)> {
        let mut connections = self.client.connection_ids();
        if self.client.is_clustered() {
            let nodes = self.client.cached_cluster_state()?;
            let server = nodes.get_server(ClusterRouting::hash_key(key.as_bytes()))?;
            connections.remove_entry(server)
        } else {
            connections.into_iter().next()
        }
    }

    fn line(&self, server: &Server) -> Arc<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.entry(server.clone()).or_default().clone()
    }

    async fn wait(&self, server: &Server) -> Result<(), Error> {
        // On this connection or not at all.
        let options = Options {
            max_attempts: Some(1),
            fail_fast: true,
            cluster_node: self.client.is_clustered().then(|| server.clone()),
            ..Options::default()
        };
        let client = self.client.with_options(&options);
        let waited = client.wait(i64::from(self.count), WITHIN.as_millis() as i64).await;
        let have: u32 = waited.map_err(Error::redis("waiting for replicas"))?;
        if have >= self.count { Ok(()) } else { Err(Error::Replicas { wanted: self.count, have }) }
    }
}
