//! Which tickets have a stream at an edge.

use fred::prelude::*;

use super::client::Rooms;
use super::error::Error;
use super::reply::{integers, lua_number, unexpected};

impl Rooms {
    /// Notes which tickets have opened or closed their stream at an edge. With `all`, the edge has no other streams than
    /// those of `opened`. The edge keeps its lease for `lease_us` microseconds of room time.
    ///
    /// Returns false if the lease of the edge had run out, so that it must send all its tickets.
    ///
    /// # Errors
    /// Returns [`NoRoom`](super::Refusal::NoRoom), or an error of Redis.
    pub async fn presence(
        &self,
        room: &str,
        edge: &str,
        all: bool,
        lease_us: u64,
        opened: &[u64],
        closed: &[u64],
    ) -> Result<bool, Error> {
        let mut args: Vec<Value> =
            vec![edge.into(), i64::from(all).into(), lua_number(lease_us), (opened.len() as i64).into()];
        args.extend(opened.iter().chain(closed).map(|n| lua_number(*n)));
        let reply = self.change(&self.scripts.presence, "presence in", room, args).await?;
        match integers(&reply)[..] {
            [known] => Ok(known == 1),
            _ => Err(unexpected("presence in", room, &reply)),
        }
    }
}
