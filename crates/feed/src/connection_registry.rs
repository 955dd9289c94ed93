//! Which devices of a user are connected to which edge. It answers "is she online?"; no delivery depends on it.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use fred::prelude::*;
use fred::types::scripts::Script;
use futures_util::future::try_join_all;

use crate::error::Error;
use crate::script::run_script;

static CONNECTION: LazyLock<Script> = LazyLock::new(|| Script::from_lua(include_str!("lua/connection.lua")));

/// Time after which a server that does not renew its lease counts as gone, with all its connections.
const LEASE: Duration = Duration::from_secs(20);
/// Time that the connections of a user outlive the longest connection.
const SPARE: Duration = Duration::from_secs(60);

/// The connections of all users to all servers: a hash `tutti:sse_connections:{USER}` from `SERVER/DEVICE` to
/// milliseconds since 1970, and a lease `tutti:sse_connections/SERVER` for each server.
#[derive(Clone)]
pub struct ConnectionRegistry {
    client: Client,
    server: String,
    longest: Duration,
}

/// A connection of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceConnection {
    /// Name of the device.
    pub device: String,
    /// Name of the server that the device is connected to.
    pub server: String,
    /// When the device connected, milliseconds since 1970.
    pub since_ms: i64,
}

impl ConnectionRegistry {
    /// Creates the registry of a server, whose name must not hold a `/`. No connection may last longer than
    /// `longest`. Redis is not asked for anything yet.
    pub fn new(client: Client, server: &str, longest: Duration) -> Self {
        Self { client, server: server.to_owned(), longest }
    }

    /// Renews the lease of this server; to be repeated every 5 seconds. Returns whether the server counted as gone,
    /// so that all its connections must be written again.
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer.
    pub async fn renew_lease(&self) -> Result<bool, Error> {
        let lasts = Some(Expiration::EX(LEASE.as_secs() as i64));
        let before: Option<i64> = self
            .client
            .set(lease(&self.server), 1, lasts, None, true)
            .await
            .map_err(Error::redis("renewing the lease of this server"))?;
        Ok(before.is_none())
    }

    /// Writes which devices of users have connected (with the time, milliseconds since 1970), and which have left. A device
    /// is named by its user and its name. May be repeated.
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer. Some of the connections may have been written.
    pub async fn update(
        &self,
        joined: &[((String, String), i64)],
        left: &[(String, String)],
    ) -> Result<(), Error> {
        let doing = || Error::redis("writing connections of users");
        // A server that dies leaves its entries behind. They go with the key.
        let lives = (self.longest + SPARE).as_secs() as i64;
        let joining = joined.iter().map(|((user, device), since_ms)| async move {
            let args: Vec<Value> = vec![self.field(device).into(), (*since_ms).into(), lives.into()];
            let _: i64 = run_script(&self.client, &CONNECTION, key(user), args).await.map_err(doing())?;
            Ok::<_, Error>(())
        });
        try_join_all(joining).await?;
        let leaving = left.iter().map(|(user, device)| async move {
            let _: i64 = self.client.hdel(key(user), self.field(device)).await.map_err(doing())?;
            Ok::<_, Error>(())
        });
        try_join_all(leaving).await?;
        Ok(())
    }

    /// Returns the connections of a user to servers that are alive, the oldest first.
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer.
    pub async fn connections_of(&self, user: &str) -> Result<Vec<DeviceConnection>, Error> {
        let doing = || Error::redis("reading the connections of a user");
        let all: HashMap<String, i64> = self.client.hgetall(key(user)).await.map_err(doing())?;
        let mut alive: HashMap<String, bool> = HashMap::new();
        let (mut found, mut dead) = (Vec::new(), Vec::new());
        for (field, since_ms) in all {
            let Some((server, device)) = field.split_once('/') else { continue };
            if !alive.contains_key(server) {
                let exists: i64 = self.client.exists(lease(server)).await.map_err(doing())?;
                alive.insert(server.to_owned(), exists > 0);
            }
            if alive[server] {
                found.push(DeviceConnection {
                    device: device.to_owned(),
                    server: server.to_owned(),
                    since_ms,
                });
            } else {
                dead.push(field);
            }
        }
        if !dead.is_empty() {
            // A server that only seemed dead writes all its connections again.
            let _: i64 = self.client.hdel(key(user), dead).await.map_err(doing())?;
        }
        found.sort_by(|a, b| (a.since_ms, &a.device).cmp(&(b.since_ms, &b.device)));
        Ok(found)
    }

    fn field(&self, device: &str) -> String {
        format!("{}/{device}", self.server)
    }
}

fn key(user: &str) -> String {
    format!("tutti:sse_connections:{{{user}}}")
}

fn lease(server: &str) -> String {
    format!("tutti:sse_connections/{server}")
}
