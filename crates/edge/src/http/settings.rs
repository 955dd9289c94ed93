//! Settings of connections and streams.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use tutti_service::Settings;
use tutti_sse::hub::Timeouts;

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
    /// Public base URLs of all edges, which the page receives.
    pub edges: Vec<String>,
    /// Origins whose pages may read this edge; `*` for all.
    pub cors_origins: Vec<String>,
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

impl Http {
    /// Reads the settings.
    pub(crate) fn configure(settings: &mut Settings) -> Self {
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
    /// Reads the settings; `max` is the default of `streams.max`.
    pub(crate) fn configure(settings: &mut Settings, max: usize) -> Self {
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

    /// Returns the times that all streams observe.
    pub(crate) fn timeouts(&self) -> Timeouts {
        Timeouts { heartbeat: self.heartbeat, stall: self.stall, drain: self.drain }
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
