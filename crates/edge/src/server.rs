//! Puts an edge together: listens, follows the feeds, starts the workers, and drains.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_server::Server;
use socket2::{Domain, Socket, Type};
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};
use tutti_feed::{Client, ConnectionRegistry, MailboxLimits, MailboxMetrics, Mailboxes};
use tutti_model::names;
use tutti_service::{CancellationToken, Context, ExposeSecret as _, Failure, Failures, file_limit, shared};

use crate::config::Config;
use crate::following::membership::Visits;
use crate::http::files::connections_of_a_worker;
use crate::http::shared::Shared;
use crate::inbox;
use crate::inbox::connections::{Connections, report};
use crate::inbox::follower::{InboxFollower, Inboxes, STEPS_WAITING};
use crate::map::copies::Copies;
use crate::map::follower::{MapFollower, TICKS_WAITING};
use crate::metrics::Metrics;
use crate::rooms;
use crate::rooms::follower::Rooms;
use crate::rooms::tickets::TicketKeys;
use crate::topics::follower::{TopicFollower, Topics};
use crate::worker::{SharedState, worker};

/// Runs an edge until the context's stop is cancelled, and then drains its streams.
///
/// # Errors
/// If the edge cannot listen, is configured otherwise than the services that share its Redis, or one of its tasks
/// fails.
pub(crate) async fn run(config: Config, metrics: Metrics, context: Context) -> Result<(), Failure> {
    let max_connections = max_connections(&config)?;
    let listener = listen(config.listen)
        .map_err(|e| Failure::Other(format!("http.listen: cannot listen on {}: {e}", config.listen)))?;
    let mut redis =
        tutti_feed::connect(config.redis_url.expose_secret()).map_err(|e| Failure::Config(e.to_string()))?;
    let (topic_follower, topics) =
        TopicFollower::new(config.redis_url.clone(), &config.topics, metrics.clone());
    let parts = shared_state(&config, &metrics, &redis.client, topics)?;
    let map_follower = MapFollower::new(
        config.map.clone(),
        config.redis_url.clone(),
        config.allow_eviction,
        metrics.clone(),
        parts.ticks.clone(),
        context.readiness.latch("the live map, from Redis"),
    );

    let for_workers = parts.clone();
    let server = Server::build()
        .workers(config.workers)
        // Streams do not count: when the socket of a stream is taken over, actix takes the connection for closed.
        .max_concurrent_connections(max_connections)
        .disable_signals()
        .shutdown_timeout(1)
        .backlog(BACKLOG as u32)
        .listen("edge", listener, move || worker(&for_workers))
        .map_err(|e| Failure::Other(format!("http.listen: {e}")))?
        .run();
    let handle = server.handle();
    let mut server = tokio::spawn(server);
    info!(listen = %config.listen, workers = config.workers, map_public = config.map.is_public, "serving");

    let client = redis.client.clone();
    let tasks = async {
        let followers = async {
            let inboxes = follow_inboxes(&config, &parts, &client);
            tokio::try_join!(map_follower.run(), topic_follower.run(), inboxes).map(drop)
        };
        tokio::try_join!(followers, run_beside(&config, &parts, &client)).map(drop)
    };
    tokio::pin!(tasks);
    let failed = |e: tutti_feed::Error| Failure::Config(e.to_string());
    tokio::select! {
        ended = &mut tasks => ended.map_err(failed)?,
        ended = &mut server => return Err(Failure::Other(format!("the HTTP server ended by itself: {ended:?}"))),
        () = redis.ended() => return Err(Failure::Other("the Redis client ended by itself".into())),
        () = context.stop.cancelled() => {}
    }
    // Streams that have not ended yet receive news until they do.
    tokio::select! {
        () = drain(&parts.draining, &metrics, config.streams.drain, context.grace) => {}
        ended = &mut tasks => ended.map_err(failed)?,
    }
    handle.stop(true).await;
    let _ = server.await;
    Ok(())
}

/// Returns how many connections that are no streams each worker may have, within the limit of open files.
///
/// # Errors
/// If the limit is too low for the streams that the edge is to take.
fn max_connections(config: &Config) -> Result<usize, Failure> {
    let configured = config.http.max_connections;
    let possible = connections_of_a_worker(config.streams.max, config.workers, configured, file_limit())
        .map_err(Failure::Config)?;
    if possible < configured {
        info!(
            max_connections = possible,
            "http.max_connections is lowered to what streams.max leaves of the open files; raise their limit for more"
        );
    }
    Ok(possible)
}

/// Creates what all workers share.
///
/// # Errors
/// If a URL of a service is invalid.
fn shared_state(
    config: &Config,
    metrics: &Metrics,
    client: &Client,
    topics: Arc<Topics>,
) -> Result<SharedState, Failure> {
    let queue = rooms::client::connect(&config.rooms.queue_urls, metrics)
        .map_err(|e| Failure::Config(format!("queue.urls: {e}")))?;
    Ok(SharedState {
        shared: Shared {
            http: Arc::new(config.http.clone()),
            streams: Arc::new(config.streams.clone()),
            verifier: config.verifier.clone(),
            metrics: metrics.clone(),
            open_streams: Arc::default(),
            failures: Failures::default(),
        },
        map: config.map.clone(),
        ticks: broadcast::channel(TICKS_WAITING).0,
        copies: Copies::new(metrics),
        answers: Arc::default(),
        room_settings: config.rooms.clone(),
        rooms: Arc::new(Rooms::new(config.redis_url.clone(), queue.clone(), metrics.clone())),
        ticket_keys: Arc::new(TicketKeys::new(queue)),
        topics,
        public_topics: config.topics.public.clone().into(),
        inboxes: Arc::new(inboxes_of(config, metrics, client)?),
        inbox_steps: broadcast::channel(STEPS_WAITING).0,
        connections: Arc::default(),
        draining: CancellationToken::new(),
    })
}

/// Follows the feeds of all inboxes, for ever.
///
/// # Errors
/// If the services that share Redis are configured otherwise.
async fn follow_inboxes(
    config: &Config,
    parts: &SharedState,
    client: &Client,
) -> Result<(), tutti_feed::Error> {
    let follower = InboxFollower::new(
        config.redis_url.clone(),
        parts.shared.metrics.clone(),
        parts.inboxes.mailboxes.clone(),
        parts.inbox_steps.clone(),
    );
    // The map's follower waits for the same Redis, and logs why it is not there.
    let waits = |_: &str| {};
    let agreement = config.inbox.mailboxes.agreement();
    tutti_feed::wait_for_agreement(client, "inbox", &agreement, config.allow_eviction, waits).await?;
    follower.run().await
}

/// Runs, for ever, what an edge does beside following feeds: reports devices to the registry of connections, watches
/// the eviction policy of Redis, and keeps the keys of tokens and tickets current.
///
/// # Errors
/// None.
async fn run_beside(config: &Config, parts: &SharedState, client: &Client) -> Result<(), tutti_feed::Error> {
    let metrics = &parts.shared.metrics;
    let Inboxes { connections, registry, .. } = &*parts.inboxes;
    let (never, ..) = tokio::join!(
        report(connections, registry, tutti_feed::connection_epoch(client)),
        tutti_feed::watch_eviction_policy(client, &metrics.redis, config.allow_eviction),
        config.verifier.follow_keys(metrics),
        parts.ticket_keys.fetch_first(),
    );
    match never {}
}

/// Creates what all workers use of inboxes: the mailboxes in Redis, the replicas of notify, and the registry of
/// connections.
///
/// # Errors
/// If a URL of notify is invalid.
fn inboxes_of(config: &Config, metrics: &Metrics, client: &Client) -> Result<Inboxes, Failure> {
    let notify = inbox::client::connect(&config.inbox.notify_urls, metrics)
        .map_err(|e| Failure::Config(format!("notify.urls: {e}")))?;
    let shared::Inboxes { buckets, items, bytes, age } = config.inbox.mailboxes;
    let keep = MailboxLimits { items, bytes, age };
    // An edge files no notifications, so these metrics are registered nowhere.
    let filed = MailboxMetrics::default();
    let mailboxes = Mailboxes::new(client.clone(), names::INBOX, buckets, keep, filed);
    // The random part tells edges apart that were given the same name.
    let server = format!("{}-{:04x}", config.inbox.edge_name, rand::random::<u16>());
    let registry = ConnectionRegistry::new(client.clone(), &server, config.streams.life.mul_f64(1.5));
    let connections = Arc::new(Connections::new(Visits::Forgotten));
    Ok(Inboxes { mailboxes, notify, connections, registry })
}

/// Number of connections that may wait to be accepted. It is large because all clients of an edge that died come at
/// once.
const BACKLOG: i32 = 4096;

/// Bytes that the kernel keeps of what a client has sent and the edge has not read yet. The kernel doubles the number,
/// for its own bookkeeping. The default would be megabytes, and the largest body of a request has one megabyte.
const RECEIVE_BYTES: usize = 64 * 1024;

/// Listens on `address`.
///
/// # Errors
/// If the address cannot be bound.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // Connections inherit the size from the listener. Set later, it would not change the window that a client receives
    // when it connects.
    socket.set_recv_buffer_size(RECEIVE_BYTES)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Has the hubs end all streams within `window`, and returns when they have or `grace` is almost over. The caller stops
/// actix-web afterwards, because stopping its workers ends the threads of the hubs.
async fn drain(draining: &CancellationToken, metrics: &Metrics, window: Duration, grace: Duration) {
    draining.cancel();
    let streams = metrics.sse.streams.get();
    info!(streams, window_seconds = window.as_secs(), "draining");
    // Hubs sweep once a second, a frame under way may take another second, and a busy machine some more.
    let window = window + Duration::from_secs(5);
    let until = Instant::now() + window.min(grace.saturating_sub(Duration::from_secs(3)));
    while metrics.sse.streams.get() > 0 && Instant::now() < until {
        sleep(Duration::from_millis(50)).await;
    }
    let left = metrics.sse.streams.get();
    if left > 0 {
        warn!(left, "streams did not end within the drain window; cutting them off");
    }
}
