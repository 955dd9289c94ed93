//! Settings of connections and streams: how many there may be, and how long anything may take.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use tutti_service::Settings;
use tutti_sse::hub::Timeouts;

/// Bounds of connections that are not streams, or not yet.
#[derive(Clone, Debug)]
pub struct Http {
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How long a client may take to send the head of a connection's first request.
    pub header: Duration,
    /// How long a connection may be without a request.
    pub idle: Duration,
    /// How long a connection may go without progress: no request arrives completely, and the client takes nothing of a
    /// response. Then it is cut off.
    pub request: Duration,
    /// Most connections of a worker that are not streams. Further ones wait to be accepted.
    pub max_connections: usize,
    /// Most connections of an address that are not streams; 0 means any number.
    pub max_connections_per_address: usize,
    /// Public base URLs of all edges, which the page of the map receives.
    pub edges: Vec<String>,
    /// Origins whose pages may read this edge; `*` stands for all.
    pub cors_origins: Vec<String>,
}

/// Bounds of streams.
#[derive(Clone, Debug)]
pub struct Streams {
    /// Most streams of this edge.
    pub max: usize,
    /// Most streams of an address; 0 means any number.
    pub max_per_address: usize,
    /// Most streams of a user; 0 means any number.
    pub max_per_user: usize,
    /// Whether streams of the map are compressed for clients that accept it.
    pub compress: bool,
    /// Longest silence of a stream. After it the stream sends a heartbeat.
    pub heartbeat: Duration,
    /// Shortest life of a stream. Each stream lives a random time between this and one and a half times as long, so
    /// that streams which started together do not end together.
    pub life: Duration,
    /// How long a client may read nothing before it is cut off.
    pub stall: Duration,
    /// Time over which the ends of all streams are spread when the edge drains.
    pub drain: Duration,
}

impl Http {
    /// Reads the settings `http.*` and `cors.*` of connections.
    pub(crate) fn configure(settings: &mut Settings) -> Self {
        let proxies = settings.list(
            "http.trusted_proxies",
            &[],
            "addresses or networks of proxies whose X-Forwarded-For is believed, such as 10.0.0.0/8",
        );
        let mut trusted_proxies = Vec::new();
        for proxy in &proxies {
            match proxy.parse::<IpNet>().or_else(|_| proxy.parse::<IpAddr>().map(IpNet::from)) {
                Ok(net) => trusted_proxies.push(net),
                Err(_) => settings.mistake(format!(
                    "http.trusted_proxies: {proxy:?} is neither an address nor a network such as 10.0.0.0/8"
                )),
            }
        }
        let mut seconds = |key: &str, default: u64, help: &'static str| {
            Duration::from_secs(settings.number(key, default, 1..=3600, help))
        };
        let header = seconds(
            "http.header_seconds",
            5,
            "seconds within which a client must send the head of a connection's first request",
        );
        let idle =
            seconds("http.idle_seconds", 15, "seconds without a request after which a connection is closed");
        let request = seconds(
            "http.request_seconds",
            30,
            "seconds without progress, of a request or its response, after which a connection is cut off",
        );
        if header.max(idle) > request {
            settings
                .mistake("http.header_seconds and http.idle_seconds must not be above http.request_seconds");
        }
        let edges = settings.list(
            "http.edges",
            &[],
            "public base URLs of all edges, which the page of the map receives",
        );
        for edge in edges.iter().filter(|e| !e.starts_with("http://") && !e.starts_with("https://")) {
            settings.mistake(format!("http.edges: {edge:?} is not an http:// or https:// URL"));
        }
        let cors_origins = settings.list(
            "cors.origins",
            &[],
            "origins whose pages may read this edge, such as https://app.example; *: all, without cookies",
        );
        for origin in cors_origins.iter().filter(|origin| *origin != "*" && !is_origin(origin)) {
            settings.mistake(format!(
                "cors.origins: {origin:?} is not an origin: scheme://host or scheme://host:port, nothing after it"
            ));
        }
        Self {
            trusted_proxies,
            edges,
            cors_origins,
            header,
            idle,
            request,
            max_connections: settings.number(
                "http.max_connections",
                25_000usize,
                1..,
                "most connections of a worker that are not streams; further ones wait to be accepted",
            ),
            max_connections_per_address: settings.get(
                "http.max_connections_per_address",
                1000usize,
                "most connections of an address that are not streams, trusted proxies excepted; 0: any number",
            ),
        }
    }
}

impl Streams {
    /// Reads the settings `streams.*`. `max` is the default of `streams.max`.
    pub(crate) fn configure(settings: &mut Settings, max: usize) -> Self {
        let mut seconds = |key: &str, default: u64, help: &'static str| {
            Duration::from_secs(settings.number(key, default, 1..=86_400, help))
        };
        Self {
            heartbeat: seconds(
                "streams.heartbeat_seconds",
                15,
                "seconds of silence after which a stream sends a heartbeat",
            ),
            life: seconds(
                "streams.life_seconds",
                600,
                "seconds after which a stream ends and its client reconnects: this to one and a half times as long",
            ),
            stall: seconds(
                "streams.stall_seconds",
                120,
                "seconds without reading after which a client is cut off",
            ),
            drain: seconds(
                "streams.drain_seconds",
                10,
                "seconds over which the ends of all streams are spread after SIGTERM",
            ),
            compress: settings.get(
                "streams.compress",
                true,
                "whether streams of the map are compressed, once for all clients that accept gzip or zstd",
            ),
            max: settings.number("streams.max", max, 1.., "most streams of this edge; each is an open file"),
            max_per_address: settings.get(
                "streams.max_per_address",
                1000usize,
                "most streams of a client's address (IPv6: its /64); 0: any number",
            ),
            max_per_user: settings.get(
                "streams.max_per_user",
                100usize,
                "most streams of a user, by the sub of the token that they need; 0: any number",
            ),
        }
    }

    /// Returns the times that all streams observe.
    pub(crate) fn timeouts(&self) -> Timeouts {
        Timeouts { heartbeat: self.heartbeat, stall: self.stall, drain: self.drain }
    }
}

/// Whether a text is an origin: a scheme and a host, and nothing after them.
fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return false };
    let scheme_fits =
        !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    let host_fits =
        !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-.:[]_".contains(c));
    scheme_fits && host_fits
}
