//! The lease of the relay to Kafka.

use fred::prelude::*;
use tutti_feed::Position;

use super::client::Rooms;
use super::error::Error;
use super::reply::{integers, lua_number, unexpected};

/// What a relay knows of a room once it has the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayLease {
    /// The epoch of the feed of the room.
    pub epoch: u32,
    /// The version that Kafka has.
    pub relayed: u64,
    /// The version of the room.
    pub seq: u64,
}

impl Rooms {
    /// Takes or keeps the lease of the relay of a room, for `lease_us` microseconds, and notes the last record that Kafka
    /// has acknowledged.
    ///
    /// # Errors
    /// Returns [`NoRoom`](super::Refusal::NoRoom) or [`Held`](super::Refusal::Held), or an error of Redis.
    pub async fn relay(
        &self,
        room: &str,
        relay: &str,
        lease_us: u64,
        acknowledged: Option<Position>,
    ) -> Result<RelayLease, Error> {
        let texts = acknowledged.map_or_else(Default::default, |record| {
            [record.epoch.to_string(), record.seq.to_string(), record.time_us.to_string()]
        });
        let mut args: Vec<Value> = vec![relay.into(), lua_number(lease_us)];
        args.extend(texts.map(Value::from));
        let reply = self.change(&self.scripts.relay, "relaying", room, args).await?;
        match integers(&reply)[..] {
            [epoch, relayed, seq] => Ok(RelayLease { epoch: epoch as u32, relayed, seq }),
            _ => Err(unexpected("relaying", room, &reply)),
        }
    }
}
