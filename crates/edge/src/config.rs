//! What an edge serves, to whom, and within which bounds.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use tutti_service::shared::{self, Inboxes, Locations};
use tutti_service::{SecretString, Settings, file_limit};

use crate::http::auth::Verifier;
use crate::http::files::streams_by_default;
use crate::map::area::MAX_ZOOM;

/// All settings of an edge.
#[derive(Clone)]
pub struct Config {
    /// Where HTTP is served.
    pub listen: SocketAddr,
    /// Worker threads.
    pub workers: usize,
    /// Bounds of connections that are no streams.
    pub http: Http,
    /// Public base URLs of all edges, which the page is told.
    pub edges: Vec<String>,
    /// Origins that pages may come from.
    pub cors_origins: Vec<String>,
    /// The Redis of the feeds.
    pub redis_url: SecretString,
    /// The service starts also on a Redis that may evict keys (`redis.allow_eviction`).
    pub allow_eviction: bool,
    /// What defines the live map.
    pub locations: Locations,
    /// The map may be read without a token.
    pub map_public: bool,
    /// The replicas of the waiting room's service; none, no waiting rooms.
    pub queue_urls: Vec<String>,
    /// Rooms may be joined without a token.
    pub rooms_public: bool,
    /// The cookie that may hold a ticket's token.
    pub rooms_cookie: String,
    /// The replicas of the notifications' service; none, nothing is sent from here.
    pub notify_urls: Vec<String>,
    /// What defines the inboxes.
    pub inboxes: Inboxes,
    /// What users' connections to this edge are listed under.
    pub name: String,
    /// Topics that are served.
    pub topics: Vec<String>,
    /// Those that may be read without a token.
    pub public_topics: Vec<String>,
    /// Bytes of a topic's newest records that are kept in memory.
    pub topic_max_bytes: usize,
    /// An area at this zoom or one further out is shown as clusters; none never is.
    pub clusters_to_zoom: Option<u8>,
    /// At most one step of the map in this time.
    pub tick: Duration,
    /// Bounds of streams.
    pub streams: Streams,
    /// Checks tokens.
    pub verifier: Verifier,
}

/// Bounds of connections that are no streams, or not yet.
#[derive(Clone, Debug)]
pub struct Http {
    /// Proxies whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How long the head of a connection's first request may take.
    pub header: Duration,
    /// How long a connection may be without a request.
    pub idle: Duration,
    /// How long a request may take to come, with its body, and to be answered; and how long a client may take
    /// nothing of the answer.
    pub request: Duration,
    /// Connections of a worker.
    pub max_connections: usize,
    /// Connections of an address; 0, any number.
    pub max_connections_per_address: usize,
}

/// Bounds of streams.
#[derive(Clone, Debug)]
pub struct Streams {
    /// Streams that this edge takes.
    pub max: usize,
    /// Streams of an address; 0, any number.
    pub max_per_address: usize,
    /// Streams of a user; 0, any number.
    pub max_per_user: usize,
    /// Those of the map are compressed for who takes that.
    pub compress: bool,
    /// A comment where nothing was sent for so long.
    pub heartbeat: Duration,
    /// A stream lives for this to one and a half times as long.
    pub life: Duration,
    /// A client that reads nothing for so long is cut off.
    pub stall: Duration,
    /// On SIGTERM streams end spread over this time.
    pub drain: Duration,
}

impl Config {
    /// Asks for them.
    pub fn configure(settings: &mut Settings) -> Self {
        let listen = settings.get(
            "http.listen",
            SocketAddr::from(([127, 0, 0, 1], 8080)),
            "address of the public HTTP port",
        );
        let workers = settings.number("http.workers", 0usize, 0..=512, "worker threads; 0: one a core");
        let workers = if workers == 0 { cores() } else { workers };
        let http = Http::configure(settings);
        let edges = settings.list("http.edges", &[], "public base URLs of all edges, told to the page");
        for edge in edges.iter().filter(|e| !e.starts_with("http://") && !e.starts_with("https://")) {
            settings.mistake(format!("http.edges: {edge:?} is not an http:// or https:// URL"));
        }
        let cors_origins = settings.list(
            "cors.origins",
            &[],
            "origins whose pages may read this edge, as https://app.example; * for all, without cookies",
        );
        for origin in cors_origins.iter().filter(|origin| *origin != "*" && !is_origin(origin)) {
            settings.mistake(format!(
                "cors.origins: {origin:?} is not an origin: scheme://host or scheme://host:port, nothing after it"
            ));
        }
        let redis_url = shared::redis_url(settings);
        let allow_eviction = shared::allow_eviction(settings);
        let locations = Locations::configure(settings);
        let map_public = settings.get("map.public", true, "whether the live map is readable without a token");
        let tick = settings.number(
            "map.tick_ms",
            250u64,
            0..=60_000,
            "milliseconds between two steps of the live map at least; 0: each batch at once",
        );
        let clusters_to_zoom = settings.optional(
            "map.clusters_to_zoom",
            "zoom, 0 (the world) to 16, up to which areas get clusters in place of devices; none: never",
        );
        let clusters_to_zoom = clusters_to_zoom.and_then(|text| {
            let zoom = text.parse().ok().filter(|zoom| *zoom <= MAX_ZOOM);
            if zoom.is_none() {
                settings.mistake(format!("map.clusters_to_zoom = {text:?}: must be 0 to {MAX_ZOOM}"));
            }
            zoom
        });
        let queue_urls = settings.list(
            "queue.urls",
            &[],
            "gRPC URLs of the waiting room's service, as http://tutti-queue:9200; none: no waiting rooms",
        );
        for url in queue_urls.iter().filter(|url| !url.starts_with("http://")) {
            settings.mistake(format!("queue.urls: {url:?} is not an http:// URL"));
        }
        let notify_urls = settings.list(
            "notify.urls",
            &[],
            "gRPC URLs of the notifications' service, as http://tutti-notify:9201; none: nothing is sent or marked",
        );
        for url in notify_urls.iter().filter(|url| !url.starts_with("http://")) {
            settings.mistake(format!("notify.urls: {url:?} is not an http:// URL"));
        }
        let inboxes = Inboxes::configure(settings);
        let name = settings.get_checked(
            "edge.name",
            std::env::var("HOSTNAME").unwrap_or_else(|_| "edge".to_owned()).replace('/', "-"),
            "what users' connections to this edge are listed under; a few letters are added to it",
            |name: &String| {
                if (1..=128).contains(&name.len()) && !name.contains('/') {
                    Ok(())
                } else {
                    Err("must have 1 to 128 bytes, and no /".to_owned())
                }
            },
        );
        let rooms_public =
            settings.get("rooms.public", true, "whether waiting rooms may be joined without a token");
        let rooms_cookie =
            settings.get("rooms.cookie", "tutti_ticket".to_owned(), "cookie that may hold a ticket's token");
        let topics = settings.list(
            "topics.names",
            &["queueing-system"],
            "topics of ingest's events routes that are served",
        );
        let public_topics =
            settings.list("topics.public", &[], "those of them that may be read without a token");
        if topics.iter().enumerate().any(|(at, name)| topics[..at].contains(name)) {
            settings.mistake("topics.names: each may stand there once");
        }
        for name in public_topics.iter().filter(|name| !topics.contains(name)) {
            settings.mistake(format!("topics.public: {name:?} is not among topics.names"));
        }
        let topic_max_bytes = settings.number(
            "topics.memory_bytes",
            16usize << 20,
            (1 << 16)..,
            "bytes of each topic's newest records kept in memory, for clients that come back",
        );
        let streams = Streams::configure(settings, streams_by_default(workers, file_limit()));
        let verifier = Verifier::configure(settings);
        if !rooms_public && !verifier.has_keys() {
            settings.mistake(
                "rooms.public = false needs keys to check tokens with: auth.hs256_secret, auth.jwks_file or auth.jwks_url",
            );
        }
        if !map_public && !verifier.has_keys() {
            settings.mistake(
                "map.public = false needs keys to check tokens with: auth.hs256_secret, auth.jwks_file or auth.jwks_url",
            );
        }
        Self {
            listen,
            workers,
            http,
            edges,
            cors_origins,
            redis_url,
            allow_eviction,
            locations,
            map_public,
            queue_urls,
            rooms_public,
            rooms_cookie,
            notify_urls,
            inboxes,
            name,
            topics,
            public_topics,
            topic_max_bytes,
            clusters_to_zoom,
            tick: Duration::from_millis(tick),
            streams,
            verifier,
        }
    }
}

impl Http {
    fn configure(settings: &mut Settings) -> Self {
        let proxies = settings.list(
            "http.trusted_proxies",
            &[],
            "addresses or networks of proxies whose X-Forwarded-For is believed, as 10.0.0.0/8",
        );
        let mut trusted_proxies = Vec::new();
        for proxy in &proxies {
            match proxy.parse::<IpNet>().or_else(|_| proxy.parse::<IpAddr>().map(IpNet::from)) {
                Ok(net) => trusted_proxies.push(net),
                Err(_) => settings.mistake(format!(
                    "http.trusted_proxies: {proxy:?} is neither an address nor a network as 10.0.0.0/8"
                )),
            }
        }
        let mut seconds = |key: &str, default: u64, help: &'static str| {
            Duration::from_secs(settings.number(key, default, 1..=3600, help))
        };
        let header = seconds(
            "http.header_seconds",
            5,
            "the head of a connection's first request must be there after so long",
        );
        let idle = seconds("http.idle_seconds", 15, "a connection without a request for so long is closed");
        let request = seconds(
            "http.request_seconds",
            30,
            "a connection is cut off where for so long no request came whole and nothing of an answer was taken",
        );
        if header.max(idle) > request {
            settings
                .mistake("http.header_seconds and http.idle_seconds must not be above http.request_seconds");
        }
        Self {
            trusted_proxies,
            header,
            idle,
            request,
            max_connections: settings.number(
                "http.max_connections",
                25_000usize,
                1..,
                "connections of a worker that are no streams; more wait to be accepted",
            ),
            max_connections_per_address: settings.get(
                "http.max_connections_per_address",
                1000usize,
                "connections of an address that are no streams, but for trusted proxies; 0: any number",
            ),
        }
    }
}

impl Streams {
    fn configure(settings: &mut Settings, max: usize) -> Self {
        let mut seconds = |key: &str, default: u64, help: &'static str| {
            Duration::from_secs(settings.number(key, default, 1..=86_400, help))
        };
        Self {
            heartbeat: seconds(
                "streams.heartbeat_seconds",
                15,
                "a comment where nothing was sent for so long",
            ),
            life: seconds(
                "streams.life_seconds",
                600,
                "a stream ends after this to one and a half times as long, and its client comes back",
            ),
            stall: seconds(
                "streams.stall_seconds",
                120,
                "a client that reads nothing for so long is cut off",
            ),
            drain: seconds("streams.drain_seconds", 10, "on SIGTERM streams end spread over this time"),
            compress: settings.get(
                "streams.compress",
                true,
                "whether the map is compressed, once for all, for clients that take gzip or zstd",
            ),
            max: settings.number(
                "streams.max",
                max,
                1..,
                "streams that this edge takes; each is an open file",
            ),
            max_per_address: settings.get(
                "streams.max_per_address",
                1000usize,
                "streams of a client's address (IPv6: its /64); 0: any number",
            ),
            max_per_user: settings.get(
                "streams.max_per_user",
                100usize,
                "streams of a user, by the sub of the token that they need; 0: any number",
            ),
        }
    }
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return false };
    let scheme_fits =
        !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    let host_fits =
        !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-.:[]_".contains(c));
    scheme_fits && host_fits
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
