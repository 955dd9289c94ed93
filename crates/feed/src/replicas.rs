//! Waiting until replicas of Redis have a write.

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

/// Time within which the replicas must have a write. After it the write counts as failed.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How many replicas must have a write of a client before it counts; none by default. Cheap to clone.
///
/// All writers that share a client share one of these, since WAIT holds up every other command on its connection: one
/// WAIT serves all the writes that were answered before it.
#[derive(Clone, Default)]
pub struct Replicas(Option<Arc<Wanted>>);

struct Wanted {
    client: Client,
    count: u32,
    /// The queue of writers for each server.
    queues: std::sync::Mutex<HashMap<Server, Arc<Queue>>>,
}

/// Writers that wait for the replicas of one server.
#[derive(Default)]
struct Queue {
    /// Number of writes that have joined the queue.
    writes: AtomicU64,
    /// The last WAIT: the number of writes that it covered, and its outcome.
    last: Mutex<Option<(u64, Result<(), Error>)>>,
}

impl Replicas {
    /// Requires `count` replicas for the writes of this client.
    pub fn new(client: Client, count: u32) -> Self {
        Self((count > 0).then(|| Arc::new(Wanted { client, count, queues: std::sync::Mutex::default() })))
    }

    /// Writes to a feed, and waits until the replicas have it.
    ///
    /// # Errors
    /// The error of the write; [`Error::Replicas`] if too few replicas have it within a second, or if nobody can tell
    /// because the connection has been replaced meanwhile; [`Error::Redis`] if Redis does not answer.
    pub async fn write<T, E: From<Error>>(
        &self,
        feed: &str,
        write: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let Some(wanted) = &self.0 else { return write.await };
        let key = head_key(feed);
        let before = wanted.connection_of(&key);
        let written = write.await?;
        let unknown = Err(Error::Replicas { wanted: wanted.count, have: 0 }.into());
        let Some((server, _)) = &before else { return unknown };
        wanted.have(server).await?;
        // The write may be on a server that is no longer the primary, or the key may have moved to another node. The
        // server that answered WAIT would know nothing of that.
        if wanted.connection_of(&key) == before { Ok(written) } else { unknown }
    }
}

impl Wanted {
    /// Waits until the replicas of a server have everything that the server has answered so far.
    async fn have(&self, server: &Server) -> Result<(), Error> {
        let queue = self.queue(server);
        let ours = queue.writes.fetch_add(1, Ordering::SeqCst);
        let mut last = queue.last.lock().await;
        if let Some((covered, outcome)) = &*last
            && *covered > ours
        {
            return outcome.clone();
        }
        let covered = queue.writes.load(Ordering::SeqCst);
        let outcome = self.wait(server).await;
        *last = Some((covered, outcome.clone()));
        outcome
    }

    /// Returns the server on which a key is written, and the id of the connection to it.
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

    fn queue(&self, server: &Server) -> Arc<Queue> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.entry(server.clone()).or_default().clone()
    }

    /// Waits for the replicas of a server.
    async fn wait(&self, server: &Server) -> Result<(), Error> {
        // WAIT must go to this connection or not at all.
        let options = Options {
            max_attempts: Some(1),
            fail_fast: true,
            cluster_node: self.client.is_clustered().then(|| server.clone()),
            ..Options::default()
        };
        let client = self.client.with_options(&options);
        let waited = client.wait(i64::from(self.count), TIMEOUT.as_millis() as i64).await;
        let have: u32 = waited.map_err(Error::redis("waiting for replicas"))?;
        if have >= self.count { Ok(()) } else { Err(Error::Replicas { wanted: self.count, have }) }
    }
}
