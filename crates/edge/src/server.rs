//! Puts an edge together: the conductor, and workers that each run actix-web and a hub.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_cors::Cors;
use actix_http::error::DispatchError;
use actix_http::{HttpService, Protocol};
use actix_server::Server;
use actix_service::{
    IntoServiceFactory as _, ServiceFactory, ServiceFactoryExt as _, fn_service, map_config,
};
use actix_web::body::BoxBody;
use actix_web::dev::{AppConfig, ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::middleware::{Next, from_fn};
use actix_web::rt::net::TcpStream;
use actix_web::{App, HttpMessage as _, web};
use socket2::{Domain, Socket, Type};
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};
use tutti_feed::{Client, ConnectionRegistry, MailboxLimits, MailboxMetrics, Mailboxes};
use tutti_model::names;
use tutti_service::{CancellationToken, Context, ExposeSecret as _, Failure, Failures, file_limit, shared};

use crate::config::{Config, Http};
use crate::http::auth::Forged;
use crate::http::client_address::{is_trusted, network_of};
use crate::http::compress::compress_documents;
use crate::http::files::connections_of_a_worker;
use crate::http::open::{MAX_ID_BYTES, Shared};
use crate::http::problem::problem;
use crate::inbox::follower::{InboxStep, Inboxes, STEPS_WAITING};
use crate::map::copies::Copies;
use crate::map::follower::{Conductor, TICKS_WAITING};
use crate::map::tick::Tick;
use crate::metrics::Metrics;
use crate::rooms::follower::Rooms;
use crate::rooms::tickets::TicketKeys;
use crate::sse::hub::Hub;
use crate::sse::limits::{Counted, Counts, Whose};
use crate::sse::takeover::{Io, LINGER, Terms, in_turn};
use crate::topics::follower::Topics;
use crate::{combined, http, inbox, map, rooms, topics};

/// A longer query is refused: an id, and what else there may be, tokens the longest of it. actix itself takes
/// a head of 128 KB, 96 headers and a URL of 64 KB, and answers 431 or 400 above.
const MAX_QUERY_BYTES: usize = MAX_ID_BYTES + 8 * 1024;

/// What all workers share.
#[derive(Clone)]
struct Parts {
    config: Arc<Config>,
    metrics: Metrics,
    ticks: broadcast::Sender<Arc<Tick>>,
    drain: CancellationToken,
    rooms: Arc<Rooms>,
    ticket_keys: Arc<TicketKeys>,
    topics: Arc<Topics>,
    inboxes: Arc<Inboxes>,
    letters: broadcast::Sender<Arc<InboxStep>>,
    streams: Arc<Counts>,
    answers: Arc<Counts>,
    copies: Copies,
    failures: Failures,
    /// Those that are no streams, or not yet.
    connections: Arc<Counts>,
}

/// Runs an edge until it is told to stop.
///
/// # Errors
/// If it cannot listen, or is configured otherwise than the services that share its Redis.
pub(crate) async fn run(config: Config, metrics: Metrics, context: Context) -> Result<(), Failure> {
    let (streams, most) = (config.streams.max, config.http.max_connections);
    let max_connections =
        connections_of_a_worker(streams, config.workers, most, file_limit()).map_err(Failure::Config)?;
    if max_connections < most {
        info!(
            max_connections,
            "http.max_connections is lowered: there are no more open files beside streams.max"
        );
    }
    let listener = listen(config.listen)
        .map_err(|e| Failure::Other(format!("http.listen: cannot listen on {}: {e}", config.listen)))?;
    let config = Arc::new(config);
    let latch = context.readiness.latch("the live map, from Redis");
    let (ticks, _) = broadcast::channel(TICKS_WAITING);
    let queue = rooms::client::connect(&config.queue_urls, &metrics)
        .map_err(|e| Failure::Config(format!("queue.urls: {e}")))?;
    let (topics_conductor, topics) = topics::follower::Conductor::new(config.clone(), metrics.clone());
    let mut redis =
        tutti_feed::connect(config.redis_url.expose_secret()).map_err(|e| Failure::Config(e.to_string()))?;
    let inboxes = Arc::new(inboxes_of(&config, &metrics, &redis.client)?);
    let (letters, _) = broadcast::channel(STEPS_WAITING);
    let parts = Parts {
        config: config.clone(),
        metrics: metrics.clone(),
        ticks: ticks.clone(),
        drain: CancellationToken::new(),
        rooms: Arc::new(Rooms::new(config.clone(), queue.clone(), metrics.clone())),
        ticket_keys: Arc::new(TicketKeys::new(queue)),
        topics,
        inboxes: inboxes.clone(),
        letters: letters.clone(),
        streams: Arc::default(),
        answers: Arc::default(),
        copies: Copies::new(&metrics),
        failures: Failures::default(),
        connections: Arc::default(),
    };

    let for_workers = parts.clone();
    let server = Server::build()
        .workers(config.workers)
        // Streams are not among them: the handoff ends what actix counts.
        .max_concurrent_connections(max_connections)
        .disable_signals()
        .shutdown_timeout(1)
        .backlog(BACKLOG as u32)
        .listen("edge", listener, move || worker(&for_workers))
        .map_err(|e| Failure::Other(format!("http.listen: {e}")))?
        .run();
    let handle = server.handle();
    let mut server = tokio::spawn(server);
    info!(listen = %config.listen, workers = config.workers, map_public = config.map_public, "serving");

    let map_conductor = Conductor::new(config.clone(), metrics.clone(), ticks, latch);
    let (client, agreement) = (redis.client.clone(), config.inboxes.agreement());
    let inbox_conductor =
        inbox::follower::Conductor::new(config.clone(), metrics.clone(), inboxes.mailboxes.clone(), letters);
    let inbox_conductor = async {
        // The map's own look at Redis says why it is not there.
        let waits = |_: &str| {};
        tutti_feed::wait_for_agreement(&client, "inbox", &agreement, config.allow_eviction, waits).await?;
        inbox_conductor.run().await
    };
    let connections = inboxes.connections.clone();
    let telling = connections.run(inboxes.registry.clone(), tutti_feed::connection_epoch(&client));
    let telling = async {
        telling.await;
        Ok(())
    };
    let watching = async {
        tutti_feed::watch_eviction_policy(&client, &metrics.redis, config.allow_eviction).await;
        Ok(())
    };
    let keys = async {
        tokio::join!(config.verifier.follow_keys(&metrics), parts.ticket_keys.fetch_first());
        Ok(())
    };
    let conductor = async {
        let followers = async {
            tokio::try_join!(map_conductor.run(), topics_conductor.run(), inbox_conductor).map(drop)
        };
        tokio::try_join!(followers, telling, watching, keys).map(drop)
    };
    tokio::pin!(conductor);
    let failed = |e: tutti_feed::Error| Failure::Config(e.to_string());
    tokio::select! {
        ended = &mut conductor => ended.map_err(failed)?,
        ended = &mut server => return Err(Failure::Other(format!("the HTTP server ended by itself: {ended:?}"))),
        () = redis.ended() => return Err(Failure::Other("the Redis client ended by itself".into())),
        () = context.stop.cancelled() => {}
    }
    // The map goes on for those whose streams have not ended yet.
    tokio::select! {
        () = drain(&parts, context.grace) => {}
        ended = &mut conductor => ended.map_err(failed)?,
    }
    handle.stop(true).await;
    let _ = server.await;
    Ok(())
}

fn inboxes_of(config: &Config, metrics: &Metrics, client: &Client) -> Result<Inboxes, Failure> {
    let notify = inbox::client::connect(&config.notify_urls, metrics)
        .map_err(|e| Failure::Config(format!("notify.urls: {e}")))?;
    let shared::Inboxes { buckets, items, bytes, age } = config.inboxes;
    let keep = MailboxLimits { items, bytes, age };
    // It files nothing.
    let filed = MailboxMetrics::default();
    let mailboxes = Mailboxes::new(client.clone(), names::INBOX, buckets, keep, filed);
    // Several edges may have one name.
    let server = format!("{}-{:04x}", config.name, rand::random::<u16>());
    let registry = ConnectionRegistry::new(client.clone(), &server, config.streams.life.mul_f64(1.5));
    Ok(Inboxes { mailboxes, notify, connections: Arc::default(), registry })
}

/// Connections that wait to be accepted: a fleet whose edge died comes at once.
const BACKLOG: i32 = 4096;

/// What the kernel keeps of what a client sent and nobody has read yet; it doubles that for what it needs itself. By
/// its own measure it would be megabytes. The largest body has one.
const RECEIVE_BYTES: usize = 64 * 1024;

/// A socket takes nothing while this much of what was written to it waits to be sent, of a stream or an answer: by
/// the kernel's own measure it would be megabytes, and what is older than that is not worth it.
const NOTSENT_LOWAT: u32 = 64 * 1024;

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // Connections have it from here: it decides on the window that a client is told when it connects.
    socket.set_recv_buffer_size(RECEIVE_BYTES)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The hubs first, and actix last: stopping its workers ends their threads.
async fn drain(parts: &Parts, grace: Duration) {
    parts.drain.cancel();
    let streams = parts.metrics.streams.get();
    info!(streams, window_seconds = parts.config.streams.drain.as_secs(), "draining");
    // Hubs sweep once a second, a frame under way may take another, and a busy machine some more.
    let window = parts.config.streams.drain + Duration::from_secs(5);
    let until = Instant::now() + window.min(grace.saturating_sub(Duration::from_secs(3)));
    while parts.metrics.streams.get() > 0 && Instant::now() < until {
        sleep(Duration::from_millis(50)).await;
    }
    let left = parts.metrics.streams.get();
    if left > 0 {
        warn!(left, "streams did not end within the drain window; cutting them off");
    }
}

/// One worker: called on its own thread.
fn worker(
    parts: &Parts,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = DispatchError, InitError = ()> + use<>
{
    let Parts { config, metrics, ticks, drain, rooms, ticket_keys, topics, inboxes, letters, .. } =
        parts.clone();
    let hub =
        Hub::start(config.streams.clone(), metrics.clone(), ticks.subscribe(), letters.subscribe(), drain);
    let shared = Shared {
        config: config.clone(),
        metrics: metrics.clone(),
        hub: hub.clone(),
        streams: parts.streams.clone(),
        answers: parts.answers.clone(),
        copies: parts.copies.clone(),
        failures: parts.failures.clone(),
        rooms,
        ticket_keys,
        topics,
        inboxes,
    };
    let app = App::new()
        .app_data(web::Data::new(shared))
        .wrap(from_fn(compress_documents))
        .wrap(from_fn(begin))
        .wrap(cors(&config.cors_origins))
        .wrap(from_fn(in_turn))
        .configure(rooms::routes::configure)
        .configure(topics::routes::configure)
        .configure(inbox::routes::configure)
        .configure(combined::routes::configure)
        .configure(map::routes::configure)
        .configure(http::pages::configure)
        .configure(http::open::configure);
    let http = HttpService::<Io, _, _>::build()
        .client_request_timeout(config.http.header)
        .keep_alive(config.http.idle)
        .client_disconnect_timeout(LINGER)
        .h1_allow_half_closed(false)
        .on_connect_ext(|io: &Io, data| {
            data.insert(io.slot());
        })
        .finish(map_config(app.into_factory().map_err(|e| e.error_response()), |_| AppConfig::default()))
        .map_init_err(|_| ());
    let connections = parts.connections.clone();
    let terms = Rc::new(Terms::new(hub, metrics.clone(), config.http.request));
    fn_service(move |socket: TcpStream| {
        let peer = socket.peer_addr().ok();
        // It saves memory where it can be set; all is right without it.
        let _ = socket2::SockRef::from(&socket).set_tcp_notsent_lowat(NOTSENT_LOWAT);
        let io =
            count(&connections, peer, &config.http).map(|counted| Io::new(socket, terms.clone(), counted));
        if io.is_err() {
            metrics.connections_refused.inc();
        }
        async move {
            io.map(|io| (io, Protocol::Http1, peer))
                .map_err(|_| DispatchError::Io(ErrorKind::ConnectionRefused.into()))
        }
    })
    .and_then(http)
}

/// Counts one more connection of an address; those of a proxy are its clients'.
fn count(connections: &Arc<Counts>, peer: Option<SocketAddr>, http: &Http) -> Result<Counted, Whose> {
    let address = peer.map(|peer| peer.ip().to_canonical());
    let address = address.filter(|address| !is_trusted(*address, &http.trusted_proxies));
    let whose = address.map(|address| Whose::Address(network_of(address)));
    connections.one_more(whose.into_iter().map(|one| (one, http.max_connections_per_address)).collect())
}

/// Begins a request. One that cannot be meant ends here.
async fn begin(
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let origins = request.app_data::<web::Data<Shared>>().map(|shared| &*shared.config.cors_origins);
    if Forged::is(request.method(), request.headers(), origins.unwrap_or_default()) {
        request.extensions_mut().insert(Forged);
    }
    if request.query_string().len() > MAX_QUERY_BYTES {
        let refusal =
            problem(StatusCode::URI_TOO_LONG, &format!("the query has more than {MAX_QUERY_BYTES} bytes"));
        return Ok(request.into_response(refusal));
    }
    next.call(request).await
}

fn cors(origins: &[String]) -> Cors {
    let cors = Cors::default()
        .allowed_methods(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
        .allow_any_header()
        .expose_headers(["retry-after", "location"])
        .max_age(3600);
    if origins.iter().any(|origin| origin == "*") {
        return cors.allow_any_origin().send_wildcard();
    }
    origins.iter().fold(cors.supports_credentials(), |cors, origin| cors.allowed_origin(origin))
}
