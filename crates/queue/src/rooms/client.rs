//! Runs the scripts of rooms.

use fred::prelude::*;
use fred::types::scripts::Script;
use tutti_feed::{Client, Replicas, channel, feed_keys, run_script};
use tutti_model::names;

use super::error::{Error, Refusal};
use super::reply::unexpected;
use super::scripts::Scripts;

/// All rooms of one Redis.
#[derive(Clone)]
pub struct Rooms {
    pub(super) client: Client,
    pub(super) scripts: Scripts,
    /// The number of changes that Kafka may be behind by before joins are refused.
    pub(super) max_unrelayed: u64,
    replicas: Replicas,
}

impl Rooms {
    /// Creates the rooms of a Redis. Joins are refused once Kafka is behind by `max_unrelayed` changes of a room.
    pub fn new(client: Client, max_unrelayed: u64) -> Self {
        Self::with_scripts(client, max_unrelayed, |text| text)
    }

    /// Creates the rooms of a Redis with changed scripts: `change` maps the text of each. A test may so set the clock.
    pub fn with_scripts(client: Client, max_unrelayed: u64, change: impl Fn(String) -> String) -> Self {
        Self { client, scripts: Scripts::new(change), max_unrelayed, replicas: Replicas::default() }
    }

    /// Lets a change succeed only once these replicas of Redis have it.
    #[must_use]
    pub fn with_replicas(self, replicas: Replicas) -> Self {
        Self { replicas, ..self }
    }

    /// Runs a script that changes a room, and waits for the replicas. Returns the reply without its `ok`.
    pub(super) async fn change(
        &self,
        script: &Script,
        doing: &'static str,
        room: &str,
        args: Vec<Value>,
    ) -> Result<Vec<Value>, Error> {
        self.replicas.write(&names::room_feed(room), self.query(script, doing, room, args)).await
    }

    /// Runs a script. Returns the reply without its `ok`.
    pub(super) async fn query(
        &self,
        script: &Script,
        doing: &'static str,
        room: &str,
        args: Vec<Value>,
    ) -> Result<Vec<Value>, Error> {
        let feed = names::room_feed(room);
        let mut all: Vec<Value> = vec![channel(&feed).into(), i64::from(rand::random::<u32>()).into()];
        all.extend(args);
        let reply: Value = run_script(&self.client, script, feed_keys(&feed), all)
            .await
            .map_err(|source| Error::Redis { doing, room: room.to_owned(), source })?;
        let mut reply = reply.into_array();
        if reply.is_empty() {
            return Err(unexpected(doing, room, &reply));
        }
        let word = reply.remove(0).convert::<String>().unwrap_or_default();
        if word == "ok" {
            return Ok(reply);
        }
        match Refusal::parse(&word) {
            Some(refusal) => Err(Error::Refused(refusal)),
            None => Err(unexpected(doing, room, &reply)),
        }
    }
}
