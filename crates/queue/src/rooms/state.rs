//! A room as Redis keeps it.

use std::fmt;

use bytes::Bytes;
use fred::prelude::*;
use serde::{Deserialize, Deserializer, de};
use tutti_model::Mode;

use super::client::Rooms;
use super::error::Error;
use super::tags::Phase;

/// The seed of a lottery, which no log may show.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Seed(pub String);

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// The settings, mode and counters of a room, under the short names of the scripts. Numbers are doubles, as in Lua. A field
/// that the version which wrote the room did not have is zero or empty.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the settings and figures of queue.proto under the scripts' short names")]
pub struct RoomState {
    pub max: f64,
    pub rate: f64,
    pub claim: f64,
    pub session: f64,
    pub pass: f64,
    pub grace: f64,
    pub opens: f64,
    pub seed: Seed,
    pub seed_sha256: String,
    #[serde(deserialize_with = "mode")]
    pub mode: Mode,
    pub phase: Phase,
    pub early: f64,
    pub tickets: f64,
    pub waiting: f64,
    pub active: f64,
    pub admitted: f64,
    pub claimed: f64,
    pub left: f64,
    pub no_shows: f64,
    pub expired: f64,
    pub away: f64,
    pub pace: f64,
    pub relayed: f64,
}

fn mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mode, D::Error> {
    Mode::try_from(i32::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// A room, and on request its tickets.
#[derive(Clone, Debug)]
pub struct StoredRoom {
    /// The epoch of the feed of the room.
    pub epoch: u32,
    /// The version of the room.
    pub seq: u64,
    /// The time of the last record, in microseconds since 1970.
    pub time_us: u64,
    /// Settings, mode and counters.
    pub state: RoomState,
    /// The time for which the first in the line has waited, in microseconds.
    pub longest_wait_us: u64,
    /// The place, or before the opening the ticket, of the first bit of `waiting`.
    pub first_place: u64,
    /// The bitmap of the waiting places, or before the opening of the waiting tickets.
    pub waiting: Bytes,
    /// The numbers of the tickets inside.
    pub active: Vec<u64>,
}

impl Rooms {
    /// Reads a room; with `tickets`, also which tickets wait and which are inside.
    ///
    /// # Errors
    /// Returns [`NoRoom`](super::Refusal::NoRoom), or an error of Redis.
    pub async fn read(&self, room: &str, tickets: bool) -> Result<StoredRoom, Error> {
        let doing = "reading";
        let args = vec![i64::from(tickets).into()];
        let mut reply = self.query(&self.scripts.read, doing, room, args).await?.into_iter();
        let mut next = || reply.next().unwrap_or(Value::Null);
        let redis = |source| Error::Redis { doing, room: room.to_owned(), source };
        let (epoch, seq, time_us) = (next(), next(), next());
        let state = next().convert::<String>().map_err(redis)?;
        Ok(StoredRoom {
            epoch: epoch.convert().map_err(redis)?,
            seq: seq.convert().map_err(redis)?,
            time_us: time_us.convert().map_err(redis)?,
            state: serde_json::from_str(&state).map_err(|error| Error::Answer {
                doing,
                room: room.to_owned(),
                // The text of the error may quote a value, such as the seed.
                answer: format!("a field of the record is of another type, before column {}", error.column()),
            })?,
            longest_wait_us: next().convert().map_err(redis)?,
            first_place: next().convert().map_err(redis)?,
            waiting: next().convert().map_err(redis)?,
            active: next().convert().map_err(redis)?,
        })
    }
}
