//! The time of a room.

use super::client::Rooms;
use super::error::Error;
use super::reply::{integers, unexpected};

/// The state of a room after a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TickReply {
    /// Whether there is more to do at once.
    pub more: bool,
    /// The version of the room.
    pub seq: u64,
    /// The version that Kafka has.
    pub relayed: u64,
    /// The number of waiting tickets.
    pub waiting: u64,
    /// The number of tickets inside.
    pub active: u64,
}

impl Rooms {
    /// Moves the time of a room forward, with at most `max_changes` changes.
    ///
    /// # Errors
    /// Returns [`NoRoom`](super::Refusal::NoRoom) or [`Over`](super::Refusal::Over), or an error of Redis.
    pub async fn tick(&self, room: &str, max_changes: u32) -> Result<TickReply, Error> {
        let args = vec![i64::from(max_changes).into()];
        let reply = self.change(&self.scripts.tick, "ticking", room, args).await?;
        match integers(&reply)[..] {
            [more, seq, relayed, waiting, active] => {
                Ok(TickReply { more: more == 1, seq, relayed, waiting, active })
            }
            _ => Err(unexpected("ticking", room, &reply)),
        }
    }
}
