//! Connecting to Redis. No other file configures the driver.

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

/// Messages that wait for a follower. Above that the oldest are dropped, and the follower refills from the log.
const MESSAGES_WAITING: usize = 2048;

/// The schemes of a URL: a single Redis, one that Sentinels know, or a Cluster, each with or without TLS.
const SCHEMES: [&str; 6] = [
    "redis://",
    "redis-sentinel://",
    "redis-cluster://",
    "rediss://",
    "rediss-sentinel://",
    "rediss-cluster://",
];
/// Attempts to send a command to a Cluster. Its timeout is the bound.
const CLUSTER_ATTEMPTS: u32 = 1000;
/// Redirections that the driver follows. On `MOVED` it learns which node has the slot before it gives up, so the
/// caller may try again. On `ASK` it must not follow: it writes `ASKING` on a connection where other commands are
/// under way, and takes the answer to one of them for its own; it waits for a node that it is not connected to, and
/// holds up all other commands meanwhile; and it sends the command to the old node again.
const MAX_REDIRECTIONS: u32 = 0;

/// A client, and the task that keeps it connected. Dropping the connection ends the task.
pub struct Connection {
    /// The client. It can be used at once: commands wait for the connection, and fail if they wait too long.
    pub client: Client,
    task: ConnectHandle,
}

impl Connection {
    /// Waits until the task ends by itself, which it should not. The client is of no use any more then. Cancel safe.
    pub async fn ended(&mut self) {
        let _ = (&mut self.task).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts to connect to a Redis, and returns without waiting for it. Must be called within a runtime.
///
/// # Errors
/// [`Error::Scheme`] or [`Error::Url`] if the URL is not one of a Redis.
pub fn connect(url: &str) -> Result<Connection, Error> {
    // The driver accepts other schemes, and ignores what they promise.
    if !SCHEMES.iter().any(|scheme| url.starts_with(scheme)) {
        return Err(Error::Scheme);
    }
    let mut config = Config::from_url(url).map_err(Error::Url)?;
    config.version = RespVersion::RESP3;
    config.fail_fast = false;
    let clustered = config.server.is_clustered();
    if let Some(tls) = config.tls.as_mut().filter(|_| clustered) {
        // A Cluster names its nodes by addresses, and certificates hold names.
        tls.hostnames = TlsHostMapping::DefaultHost;
    }
    let client = Builder::from_config(config)
        .with_connection_config(|c| {
            c.connection_timeout = Duration::from_secs(2);
            c.internal_command_timeout = Duration::from_secs(2);
            c.max_command_attempts = if clustered { CLUSTER_ATTEMPTS } else { 3 };
            c.max_redirections = MAX_REDIRECTIONS;
            c.max_command_buffer_len = 10_000;
            c.unresponsive = UnresponsiveConfig {
                max_timeout: Some(Duration::from_secs(3)),
                interval: Duration::from_secs(1),
            };
            c.tcp.nodelay = Some(true);
            c.tcp.keepalive = Some(socket2::TcpKeepalive::new().with_time(Duration::from_secs(15)));
            // READONLY comes from a replica that was the primary. A Redis that loads is not helped by another
            // connection.
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
    tokio::spawn(log_errors(client.error_rx(), client.reconnect_rx()));
    let task = client.connect();
    Ok(Connection { client, task })
}

/// Logs why there is no connection, each reason once. Commands that wait for a connection only say that they waited.
async fn log_errors(
    mut errors: Receiver<(fred::error::Error, Option<Server>)>,
    mut reconnects: Receiver<Server>,
) {
    let mut logged = String::new();
    loop {
        tokio::select! {
            error = errors.recv() => match error {
                Ok((error, _)) if error.to_string() != logged => {
                    warn!("no connection to Redis: {}", explain(&error));
                    logged = error.to_string();
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            reconnected = reconnects.recv() => match reconnected {
                Ok(_) | Err(RecvError::Lagged(_)) => logged.clear(),
                Err(RecvError::Closed) => return,
            },
        }
    }
}

/// Returns the connection epoch of a client, which grows each time that it is connected: a Redis that was connected
/// to again may have lost something. Must be called within a runtime.
pub fn connection_epoch(client: &Client) -> watch::Receiver<u64> {
    let (sender, receiver) = watch::channel(0);
    let mut reconnects = client.reconnect_rx();
    tokio::spawn(async move {
        // A notice that was missed counts as well.
        while !matches!(reconnects.recv().await, Err(RecvError::Closed)) && !sender.is_closed() {
            sender.send_modify(|count| *count += 1);
        }
    });
    receiver
}

/// Returns the time of Redis, microseconds since 1970. Feeds take their times from this clock. In a Cluster it is
/// that of any node.
///
/// # Errors
/// [`Error::Redis`] if Redis does not answer.
pub async fn time_us(client: &Client) -> Result<u64, Error> {
    let doing = "reading the clock of Redis";
    let time = CustomCommand::new_static("TIME", ClusterHash::FirstKey, false);
    let (seconds, micros): (u64, u64) =
        client.custom(time, Vec::<Value>::new()).await.map_err(Error::redis(doing))?;
    Ok(seconds * 1_000_000 + micros)
}
