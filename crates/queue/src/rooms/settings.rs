//! Making a room, and changing its settings and its mode.

use fred::prelude::*;
use tutti_model::queue::RoomChanges;
use tutti_model::room::all_changed;
use tutti_model::{Mode, RoomSettings};

use super::client::Rooms;
use super::error::Error;

impl Rooms {
    /// Makes a room, or replaces its settings. The opening time stays as it is if `opens_at_ms` is `None`, and is now if it
    /// is 0. The seed and its SHA-256 are used only for a new room.
    ///
    /// # Errors
    /// Returns [`Closed`](super::Refusal::Closed) or [`Opened`](super::Refusal::Opened), or an error of Redis.
    pub async fn put(
        &self,
        room: &str,
        settings: &RoomSettings,
        opens_at_ms: Option<u64>,
        seed: &str,
        sha256: &str,
    ) -> Result<(), Error> {
        self.enlist(room).await?;
        self.set(room, &all_changed(settings, opens_at_ms), Some([seed, sha256])).await?;
        // A replica that had just found the room missing may have taken it off the list in between.
        self.enlist(room).await
    }

    /// Changes some settings of a room that exists. Settings that are absent stay as Redis has them, so that no change made
    /// at the same time is lost.
    ///
    /// # Errors
    /// Returns [`NoRoom`](super::Refusal::NoRoom), [`Closed`](super::Refusal::Closed) or
    /// [`Opened`](super::Refusal::Opened), or an error of Redis.
    pub async fn patch(&self, room: &str, changes: &RoomChanges) -> Result<(), Error> {
        self.set(room, changes, None).await
    }

    /// Changes the mode of a room.
    ///
    /// # Errors
    /// Returns [`NoRoom`](super::Refusal::NoRoom) or [`Closed`](super::Refusal::Closed), or an error of Redis.
    pub async fn set_mode(&self, room: &str, mode: Mode) -> Result<(), Error> {
        let args = vec![(mode as i64).into()];
        self.change(&self.scripts.mode, "changing the mode of", room, args).await.map(drop)
    }

    /// Changes settings. With a seed and its SHA-256, a room that does not exist is made.
    async fn set(&self, room: &str, changes: &RoomChanges, seed: Option<[&str; 2]>) -> Result<(), Error> {
        fn text<T: ToString>(value: Option<T>) -> Value {
            value.map(|value| value.to_string()).unwrap_or_default().into()
        }
        let mut args: Vec<Value> = vec![
            text(changes.max_active),
            text(changes.admit_per_second),
            text(changes.claim_seconds),
            text(changes.session_seconds),
            text(changes.pass_seconds),
            text(changes.grace_seconds),
            text(changes.opens_at_ms),
        ];
        args.extend(seed.into_iter().flatten().map(Value::from));
        self.change(&self.scripts.put, "setting", room, args).await.map(drop)
    }
}
