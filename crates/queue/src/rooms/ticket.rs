//! Tickets: joining a room, and what happens to a ticket afterwards.

use bytes::Bytes;
use fred::prelude::*;
use tutti_model::Mode;

use super::client::Rooms;
use super::error::Error;
use super::reply::{integers, lua_number, unexpected};
use super::tags::TicketStatus;

/// The number of hashes that the idempotency keys of a room are spread over, so that Redis keeps each as a short list.
const KEY_BUCKETS: u16 = 16_384;

/// A ticket, with what its holder has to know of the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketReply {
    /// The number of the ticket.
    pub number: u64,
    /// The epoch of the feed of the room.
    pub epoch: u32,
    /// The time at which the ticket joined, in microseconds since 1970.
    pub joined_us: u64,
    /// Whether the ticket waits, is inside, or is gone.
    pub status: TicketStatus,
    /// The position in the line, from 1. It is 0 if the ticket does not wait, or the room has not opened.
    pub position: u64,
    /// The number of waiting tickets.
    pub waiting: u64,
    /// The version of the room.
    pub seq: u64,
    /// The time of the last record of the room, in microseconds since 1970.
    pub time_us: u64,
    /// The recent pace, in admissions per thousand seconds.
    pub pace_milli: u64,
    /// The mode of the room.
    pub mode: Mode,
    /// The end of the claim or session, in milliseconds since 1970.
    pub until_ms: u64,
    /// The validity of a pass, in seconds.
    pub pass_seconds: u64,
    /// The clock of Redis, in microseconds since 1970.
    pub now_us: u64,
}

/// What the holder of a ticket does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TicketAction {
    /// Reads the ticket, which counts as a sign of life.
    Get,
    /// Begins the session of an admitted ticket.
    Claim,
    /// Begins the session again.
    Renew,
    /// Leaves the line, or ends the session.
    Leave,
}

impl TicketAction {
    /// Returns the word that `ticket.lua` has for the action.
    fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Claim => "claim",
            Self::Renew => "renew",
            Self::Leave => "leave",
        }
    }
}

impl Rooms {
    /// Joins a room. The same key gets the same ticket.
    ///
    /// # Errors
    /// Returns [`NoRoom`](super::Refusal::NoRoom), [`Closed`](super::Refusal::Closed),
    /// [`Draining`](super::Refusal::Draining) or [`Full`](super::Refusal::Full), or an error of Redis.
    pub async fn join(&self, room: &str, key: [u8; 16]) -> Result<TicketReply, Error> {
        let bucket = u16::from_be_bytes([key[0], key[1]]) % KEY_BUCKETS;
        let args: Vec<Value> = vec![
            Bytes::copy_from_slice(&key).into(),
            i64::from(bucket).into(),
            lua_number(self.max_unrelayed),
        ];
        let reply = self.change(&self.scripts.join, "joining", room, args).await?;
        ticket_reply("joining", room, &reply)
    }

    /// Performs an action on the ticket with this number, if it joined at `joined_us` in this epoch.
    ///
    /// # Errors
    /// Returns [`NoRoom`](super::Refusal::NoRoom), [`NoTicket`](super::Refusal::NoTicket),
    /// [`Closed`](super::Refusal::Closed), [`NotAdmitted`](super::Refusal::NotAdmitted) or
    /// [`Gone`](super::Refusal::Gone), or an error of Redis.
    pub async fn act(
        &self,
        room: &str,
        action: TicketAction,
        number: u64,
        epoch: u32,
        joined_us: u64,
    ) -> Result<TicketReply, Error> {
        let (epoch, joined) = (epoch.to_string(), joined_us.to_string());
        let args = vec![action.as_str().into(), lua_number(number), epoch.into(), joined.into()];
        let reply = self.change(&self.scripts.ticket, "a ticket of", room, args).await?;
        ticket_reply("a ticket of", room, &reply)
    }

    /// Removes the ticket with this number, whoever holds it.
    ///
    /// # Errors
    /// Returns [`NoRoom`](super::Refusal::NoRoom), [`NoTicket`](super::Refusal::NoTicket) or
    /// [`Closed`](super::Refusal::Closed), or an error of Redis.
    pub async fn remove(&self, room: &str, number: u64) -> Result<TicketReply, Error> {
        let args = vec!["remove".into(), lua_number(number), "".into(), "".into()];
        let reply = self.change(&self.scripts.ticket, "removing a ticket of", room, args).await?;
        ticket_reply("removing a ticket of", room, &reply)
    }
}

/// Reads what `ticket_reply` of `tickets.lua` answers.
fn ticket_reply(doing: &'static str, room: &str, reply: &[Value]) -> Result<TicketReply, Error> {
    let [
        number,
        epoch,
        joined_us,
        status,
        position,
        waiting,
        seq,
        time_us,
        pace_milli,
        mode,
        until_ms,
        pass_seconds,
        now_us,
    ] = integers(reply)[..]
    else {
        return Err(unexpected(doing, room, reply));
    };
    Ok(TicketReply {
        number,
        epoch: epoch as u32,
        joined_us,
        status: TicketStatus::from_tag(status as i32),
        position,
        waiting,
        seq,
        time_us,
        pace_milli,
        mode: Mode::try_from(mode as i32).unwrap_or_default(),
        until_ms,
        pass_seconds,
        now_us,
    })
}
