//! One worker thread: actix-web, a hub, and the streams of each job.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use actix_cors::Cors;
use actix_http::error::DispatchError;
use actix_http::{HttpService, Protocol};
use actix_service::{
    IntoServiceFactory as _, ServiceFactory, ServiceFactoryExt as _, fn_service, map_config,
};
use actix_web::dev::AppConfig;
use actix_web::middleware::from_fn;
use actix_web::{App, web};
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tutti_service::CancellationToken;
use tutti_sse::hub::Hub;
use tutti_sse::limits::{Limits, Owner, Permit};
use tutti_sse::takeover::{Io, LINGER, Terms, in_turn};

use crate::combined::join::CombinedStreams;
use crate::combined::routes::CombinedRoutes;
use crate::http::client_address::{is_trusted, network_of};
use crate::http::compress::compress_documents;
use crate::http::problem::{problem_documents, unreadable_request};
use crate::http::routes::guard_request;
use crate::http::settings::Http;
use crate::http::shared::Shared;
use crate::http::{pages, routes};
use crate::inbox::devices::InboxStreams;
use crate::inbox::follower::{InboxStep, Inboxes};
use crate::inbox::routes::InboxRoutes;
use crate::map::copies::Copies;
use crate::map::routes::MapRoutes;
use crate::map::settings::MapSettings;
use crate::map::tick::Tick;
use crate::map::viewers::MapStreams;
use crate::rooms::follower::Rooms;
use crate::rooms::routes::RoomRoutes;
use crate::rooms::settings::RoomSettings;
use crate::rooms::tickets::TicketKeys;
use crate::rooms::visitors::RoomStreams;
use crate::topics::follower::Topics;
use crate::topics::listeners::TopicStreams;
use crate::topics::routes::TopicRoutes;

/// Unsent bytes in the kernel above which a socket, of a stream or a response, takes no more. The kernel's default
/// would be megabytes; a client that is so far behind is better served with the newest state.
const NOTSENT_LOWAT: u32 = 64 * 1024;

/// What all workers share. `server.rs` creates it, and each worker has a clone.
#[derive(Clone)]
pub(crate) struct SharedState {
    pub(crate) shared: Shared,
    pub(crate) map: MapSettings,
    /// Sends the ticks of the map to each worker.
    pub(crate) ticks: broadcast::Sender<Arc<Tick>>,
    pub(crate) copies: Copies,
    /// Counts the bytes of documents of the map that are on their way to clients.
    pub(crate) answers: Arc<Limits>,
    pub(crate) room_settings: RoomSettings,
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) ticket_keys: Arc<TicketKeys>,
    pub(crate) topics: Arc<Topics>,
    pub(crate) public_topics: Arc<[String]>,
    pub(crate) inboxes: Arc<Inboxes>,
    /// Sends the steps of the inboxes to each worker.
    pub(crate) inbox_steps: broadcast::Sender<Arc<InboxStep>>,
    /// Counts the connections that are not streams, or not yet.
    pub(crate) connections: Arc<Limits>,
    /// Cancelled when the edge starts to drain.
    pub(crate) draining: CancellationToken,
}

/// The handlers of each job, with the streams of one worker.
struct Jobs {
    map: MapRoutes,
    rooms: RoomRoutes,
    topics: TopicRoutes,
    inbox: InboxRoutes,
    combined: CombinedRoutes,
}

impl Jobs {
    /// Creates the streams of each job on the hub of a worker, and the handlers that admit clients to them.
    fn start(parts: &SharedState, hub: &Rc<Hub>) -> Self {
        let (shared, metrics) = (parts.shared.clone(), &parts.shared.metrics);
        let map = MapRoutes {
            shared: shared.clone(),
            streams: MapStreams::start(hub, metrics.clone(), parts.ticks.subscribe()),
            copies: parts.copies.clone(),
            answers: parts.answers.clone(),
            is_public: parts.map.is_public,
            clusters_to_zoom: parts.map.clusters_to_zoom,
        };
        let rooms = RoomRoutes {
            shared: shared.clone(),
            streams: RoomStreams::new(hub, metrics.clone()),
            rooms: parts.rooms.clone(),
            ticket_keys: parts.ticket_keys.clone(),
            is_public: parts.room_settings.is_public,
            cookie: parts.room_settings.cookie.clone(),
        };
        let topics = TopicRoutes {
            shared: shared.clone(),
            streams: TopicStreams::new(hub, metrics.clone()),
            topics: parts.topics.clone(),
            public: parts.public_topics.clone(),
        };
        let inbox = InboxRoutes {
            shared,
            streams: InboxStreams::start(hub, metrics.clone(), parts.inbox_steps.subscribe()),
            inboxes: parts.inboxes.clone(),
        };
        let streams = CombinedStreams::new(hub.clone());
        let combined =
            CombinedRoutes { streams, map: map.clone(), rooms: rooms.clone(), inbox: inbox.clone() };
        Self { map, rooms, topics, inbox, combined }
    }
}

/// Starts one worker: its hub, its jobs, and the service that takes its connections. Call it on the thread of the
/// worker.
pub(crate) fn worker(
    parts: &SharedState,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = DispatchError, InitError = ()> + use<>
{
    let shared = parts.shared.clone();
    let (http, metrics) = (shared.http.clone(), shared.metrics.clone());
    let hub = Hub::start(shared.streams.timeouts(), metrics.sse.clone(), parts.draining.clone());
    let Jobs { map, rooms, topics, inbox, combined } = Jobs::start(parts, &hub);
    let app = App::new()
        .app_data(web::Data::new(shared))
        .wrap(from_fn(compress_documents))
        .wrap(from_fn(guard_request))
        .wrap(cors(&http.cors_origins))
        .wrap(from_fn(problem_documents))
        .wrap(from_fn(in_turn))
        .configure(|app| rooms.configure(app))
        .configure(|app| topics.configure(app))
        .configure(|app| inbox.configure(app))
        .configure(|app| combined.configure(app))
        .configure(|app| map.configure(app))
        .configure(pages::configure)
        .configure(routes::configure);
    let service = HttpService::<Io, _, _>::build()
        .client_request_timeout(http.header)
        .keep_alive(http.idle)
        .client_disconnect_timeout(LINGER)
        .h1_allow_half_closed(false)
        .on_connect_ext(|io: &Io, data| {
            data.insert(io.slot());
        })
        .finish(map_config(app.into_factory().map_err(|e| e.error_response()), |_| AppConfig::default()))
        .map_init_err(|_| ());
    let connections = parts.connections.clone();
    let terms = Rc::new(Terms::new(hub, http.request, unreadable_request));
    fn_service(move |socket: TcpStream| {
        let peer = socket.peer_addr().ok();
        // The option only saves memory, so a system that lacks it is fine.
        let _ = socket2::SockRef::from(&socket).set_tcp_notsent_lowat(NOTSENT_LOWAT);
        let io = count(&connections, peer, &http).map(|permit| Io::new(socket, terms.clone(), permit));
        if io.is_err() {
            metrics.connections_refused.inc();
        }
        async move {
            io.map(|io| (io, Protocol::Http1, peer))
                .map_err(|_| DispatchError::Io(ErrorKind::ConnectionRefused.into()))
        }
    })
    .and_then(service)
}

/// Counts one more connection against the limit of its address. The connections of a trusted proxy are not counted:
/// they belong to its clients.
///
/// # Errors
/// The owner whose limit is reached.
fn count(connections: &Arc<Limits>, peer: Option<SocketAddr>, http: &Http) -> Result<Permit, Owner> {
    let address = peer.map(|peer| peer.ip().to_canonical());
    let address = address.filter(|address| !is_trusted(*address, &http.trusted_proxies));
    let owner = address.map(|address| Owner::Address(network_of(address)));
    connections.acquire(owner.into_iter().map(|owner| (owner, http.max_connections_per_address)).collect())
}

/// Returns the CORS middleware that lets pages of these origins read the edge; `*` stands for all, without cookies.
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
