//! The one file that configures the Redis driver.

use std::time::Duration;

use fred::prelude::*;
use fred::types::RespVersion;
use fred::types::config::{ReconnectError, Server, TlsHostMapping, UnresponsiveConfig};
use fred::types::{ClusterHash, ConnectHandle, CustomCommand};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tracing::warn;

use crate::error::{Error, explain};

/// Messages that wait for a follower; beyond it the oldest are dropped and refilled from the log.
const MESSAGES_WAITING: usize = 2048;

/// What the URL of a Redis begins with: a single one, one that Sentinels tell of, or a Cluster; with TLS, or without.
const SCHEMES: [&str; 6] = [
    "redis://",
    "redis-sentinel://",
    "redis-cluster://",
    "rediss://",
    "rediss-sentinel://",
    "rediss-cluster://",
];
/// How often a command of a Cluster may be sent: what bounds it is its time.
const CLUSTER_ATTEMPTS: u32 = 1000;
/// The driver must not follow redirections. On `MOVED` it learns who has the slot before it gives up, and who asked
/// may ask again. But on `ASK` it writes `ASKING` on a connection where other commands are under way, and takes the
/// answer of one of them for its own; it waits for a node that it is not connected to, and holds up all others
/// meanwhile; and it sends the command to the old node again.
const REDIRECTIONS: u32 = 0;

/// A client and the task that keeps it connected, for ever; dropping it ends the task.
pub struct Connection {
    /// Usable at once: commands wait for the connection, and fail when they waited too long.
    pub client: Client,
    task: ConnectHandle,
}

impl Connection {
    /// Completes only if the driver's task ended by itself, which it should not: the client is of
    /// no use any more then.
    pub async fn ended(&mut self) {
        let _ = (&mut self.task).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts to connect to a Redis, and returns without waiting for it. Needs a runtime.
///
/// # Errors
/// [`Error::Scheme`] or [`Error::Url`] if the URL is none that we can use.
pub fn connect(url: &str) -> Result<Connection, Error> {
    // The driver would take other schemes, and go on without what they promise.
    if !SCHEMES.iter().any(|scheme| url.starts_with(scheme)) {
        return Err(Error::Scheme);
    }
    let mut config = Config::from_url(url).map_err(Error::Url)?;
    config.version = RespVersion::RESP3;
    config.fail_fast = false;
    let clustered = config.server.is_clustered();
    if let Some(tls) = config.tls.as_mut().filter(|_| clustered) {
        // Nodes are told of by their addresses, and certificates are of names.
        tls.hostnames = TlsHostMapping::DefaultHost;
    }
    let client = Builder::from_config(config)
        .with_connection_config(|c| {
            c.connection_timeout = Duration::from_secs(2);
            c.internal_command_timeout = Duration::from_secs(2);
            c.max_command_attempts = if clustered { CLUSTER_ATTEMPTS } else { 3 };
            c.max_redirections = REDIRECTIONS;
            c.max_command_buffer_len = 10_000;
            c.unresponsive = UnresponsiveConfig {
                max_timeout: Some(Duration::from_secs(3)),
                interval: Duration::from_secs(1),
            };
            c.tcp.nodelay = Some(true);
            c.tcp.keepalive = Some(socket2::TcpKeepalive::new().with_time(Duration::from_secs(15)));
            // A replica that was a primary. One that loads is not helped by another connection.
            c.reconnect_errors = vec![ReconnectError::ReadOnly];
        })
        .with_performance_config(|c| {
            c.default_command_timeout = Duration::from_secs(5);
            c.broadcast_channel_capacity = MESSAGES_WAITING;
        })
        .set_policy(ReconnectPolicy::Exponential {
            attempts: 0,
            max_attempts: 0,
            min_delay: 20,
            max_delay: 1000,
            base: 2,
            jitter: 20,
        })
        .build()
        .map_err(Error::Url)?;
    tokio::spawn(say_why(client.error_rx(), client.reconnect_rx()));
    let task = client.connect();
    Ok(Connection { client, task })
}

/// Says why there is no connection, each reason once: commands that wait for one tell only that they waited.
async fn say_why(
    mut errors: Receiver<(fred::error::Error, Option<Server>)>,
    mut connected: Receiver<Server>,
) {
    let mut said = String::new();
    loop {
        tokio::select! {
            error = errors.recv() => match error {
                Ok((error, _)) if error.to_string() != said => {
                    warn!("no connection to Redis: {}", explain(&error));
                    said = error.to_string();
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            again = connected.recv() => match again {
                Ok(_) | Err(RecvError::Lagged(_)) => said.clear(),
                Err(RecvError::Closed) => return,
            },
        }
    }
}

/// How often a client has been connected: each time, it may be to a Redis that has lost something. Needs a
/// runtime.
pub fn connection_epoch(client: &Client) -> watch::Receiver<u64> {
    let (sender, receiver) = watch::channel(0);
    let mut reconnects = client.reconnect_rx();
    tokio::spawn(async move {
        // One that was missed is one more all the same.
        while !matches!(reconnects.recv().await, Err(RecvError::Closed)) && !sender.is_closed() {
            sender.send_modify(|count| *count += 1);
        }
    });
    receiver
}

/// Redis's own clock, microseconds since 1970: the one that feeds take their time from. Of a Cluster, that of any
/// node.
///
/// # Errors
/// [`Error::Redis`] if it does not answer.
pub async fn time_us(client: &Client) -> Result<u64, Error> {
    let doing = "reading the clock of Redis";
    let time = CustomCommand::new_static("TIME", ClusterHash::FirstKey, false);
    let (seconds, micros): (u64, u64) =
        client.custom(time, Vec::<Value>::new()).await.map_err(Error::redis(doing))?;
    Ok(seconds * 1_000_000 + micros)
}
