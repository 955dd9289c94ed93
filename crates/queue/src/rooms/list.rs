//! The list of the rooms that exist.

use fred::prelude::*;

use super::client::Rooms;
use super::error::Error;

/// The key of the set of the names of all rooms.
const ROOMS: &str = "tutti:rooms";

impl Rooms {
    /// Returns the names of all rooms.
    ///
    /// # Errors
    /// Returns [`Error::Redis`] if Redis does not answer.
    pub async fn list(&self) -> Result<Vec<String>, Error> {
        let redis = |source| Error::Redis { doing: "listing", room: "*".to_owned(), source };
        self.client.smembers(ROOMS).await.map_err(redis)
    }

    /// Puts a room on the list.
    ///
    /// # Errors
    /// Returns [`Error::Redis`] if Redis does not answer.
    pub async fn enlist(&self, room: &str) -> Result<(), Error> {
        let redis = |source| Error::Redis { doing: "listing", room: room.to_owned(), source };
        self.client.sadd(ROOMS, room).await.map_err(redis)
    }

    /// Takes a room off the list.
    ///
    /// # Errors
    /// Returns [`Error::Redis`] if Redis does not answer.
    pub async fn unlist(&self, room: &str) -> Result<(), Error> {
        let redis = |source| Error::Redis { doing: "unlisting", room: room.to_owned(), source };
        self.client.srem(ROOMS, room).await.map_err(redis)
    }
}
