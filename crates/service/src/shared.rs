//! Settings that several services read, and must read alike.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use crate::settings::Settings;

/// The Redis that carries the feeds.
pub fn redis_url(settings: &mut Settings) -> SecretString {
    let url = settings.url(
        "redis.url",
        "redis://127.0.0.1:6379",
        "URL of the Redis: redis://user:password@host:port/db, or of Sentinels, as \
         redis-sentinel://user:password@sentinel-1:26379/db?sentinelServiceName=main&node=sentinel-2:26379, \
         or of a Cluster, as redis-cluster://user:password@node-1:6379?node=node-2:6379; with TLS rediss://, \
         rediss-sentinel:// or rediss-cluster://",
    );
    let scheme = url.expose_secret().split_once("://").map_or("", |(scheme, _)| scheme);
    let kind = scheme.strip_prefix("rediss").or_else(|| scheme.strip_prefix("redis"));
    if !kind.is_some_and(|kind| ["", "-sentinel", "-cluster"].contains(&kind)) {
        settings.mistake(
            "redis.url must begin with redis://, redis-sentinel:// or redis-cluster://, or with TLS with \
             rediss://, rediss-sentinel:// or rediss-cluster://",
        );
    }
    if is_cut_short(url.expose_secret()) {
        settings.mistake(
            "redis.url has a character in its user or password that ends them: @ must be written as %40, : as %3A, \
             / as %2F, # as %23, ? as %3F",
        );
    }
    if kind == Some("-sentinel") && !url.expose_secret().contains("sentinelServiceName=") {
        settings.mistake(
            "redis.url of Sentinels needs ?sentinelServiceName=, the name that they know the primary by",
        );
    }
    url
}

/// Whether a URL ends its host before its user and password are over, for these hold a character that does so.
fn is_cut_short(url: &str) -> bool {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let (host, more) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // What is said of Sentinels and nodes may hold an @.
    let more = match more.split_once('?') {
        Some((before, query))
            if !query.contains('?')
                && ["sentinelServiceName=", "node="].iter().any(|name| query.contains(name)) =>
        {
            before
        }
        _ => more,
    };
    rest.contains('#') || (!host.contains('@') && more.contains('@'))
}

/// How many replicas of Redis must have a write before it counts.
pub fn wait_replicas(settings: &mut Settings) -> u32 {
    settings.number("redis.wait_replicas", 0u32, 0..=10, "a write counts when so many replicas of Redis have it, and is repeated otherwise; 0: the primary is enough")
}

/// Whether a service runs all the same on a Redis that may evict.
pub fn allow_eviction(settings: &mut Settings) -> bool {
    settings.get("redis.allow_eviction", false, "run all the same on a Redis whose maxmemory-policy is not noeviction: it may lose inboxes, tickets and logs")
}

/// Kafka, and how to talk to it.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// Bootstrap servers, `host:port,...`.
    pub brokers: String,
    /// Settings handed to librdkafka as they are, as for TLS and SASL. They may hold secrets.
    pub properties: BTreeMap<String, String>,
}

impl Kafka {
    /// Asks for it; `reserved` are the properties that the service's code counts on.
    pub fn configure(settings: &mut Settings, reserved: &[&str]) -> Self {
        let brokers =
            settings.list("kafka.brokers", &["127.0.0.1:9092"], "bootstrap servers of Kafka, host:port,...");
        if brokers.is_empty() {
            settings.mistake("kafka.brokers is empty; it is: host:port of at least one broker");
        }
        let properties =
            settings.rest("kafka.properties", "handed to librdkafka as it is, as security.protocol");
        for key in reserved.iter().filter(|key| properties.contains_key(**key)) {
            settings.mistake(format!("kafka.properties.{key} is Tutti's own: what it promises rests on it"));
        }
        Self { brokers: brokers.join(","), properties }
    }
}

/// Settings of the driver that count for who writes to Kafka with every acknowledgement.
pub const PRODUCERS_OWN: [&str; 5] =
    ["bootstrap.servers", "enable.idempotence", "acks", "message.timeout.ms", "transactional.id"];

/// Where a service serves gRPC, unless it is told otherwise on this port of this machine only.
pub fn grpc_listen(settings: &mut Settings, port: u16) -> SocketAddr {
    settings.get(
        "grpc.listen",
        SocketAddr::from(([127, 0, 0, 1], port)),
        "address of the gRPC port, which only edges and back ends may reach",
    )
}

/// What defines the live map. All services that share a Redis must agree on it.
#[derive(Clone, Debug)]
pub struct Locations {
    /// Feeds that the map is spread over.
    pub shards: u32,
    /// A fix older than this is gone.
    pub stale_after: Duration,
    /// What the log of each feed keeps.
    pub log_age: Duration,
}

impl Locations {
    /// Asks for them.
    pub fn configure(settings: &mut Settings) -> Self {
        let shards = settings.number(
            "locations.shards",
            4u32,
            1..=256,
            "feeds that the live map is spread over; a Kafka partition goes to partition modulo shards",
        );
        let stale_after = settings.number(
            "locations.stale_after_seconds",
            30u64,
            1..=86_400,
            "a device that sent nothing for so many seconds leaves the map",
        );
        Self {
            shards,
            stale_after: Duration::from_secs(stale_after),
            // A fix may be 10 s ahead and lives for stale_after beyond that; three times that
            // leaves twice as much for clients that come back.
            log_age: Duration::from_secs(3 * (stale_after + 10)),
        }
    }

    /// The values to compare with other services.
    pub fn agreement(&self) -> [(&'static str, String); 2] {
        [
            ("locations.shards", self.shards.to_string()),
            ("locations.stale_after_seconds", self.stale_after.as_secs().to_string()),
        ]
    }
}

/// What defines the inboxes. All services that share a Redis must agree on it.
#[derive(Clone, Copy, Debug)]
pub struct Inboxes {
    /// Feeds that mailboxes are spread over.
    pub buckets: u32,
    /// What a mailbox keeps at most: notifications,
    pub items: u32,
    /// bytes of them,
    pub bytes: u32,
    /// and none that is older.
    pub age: Duration,
}

impl Inboxes {
    /// Asks for them.
    pub fn configure(settings: &mut Settings) -> Self {
        let buckets = settings.number("inbox.buckets", 1u32, 1..=256, "feeds that the inboxes are spread over: one does most in a call; of a Redis Cluster, several a node");
        let items = settings.number(
            "inbox.keep",
            200u32,
            1..=1000,
            "notifications that an inbox keeps; the oldest go first",
        );
        let bytes =
            settings.number("inbox.keep_bytes", 256 << 10, 1 << 10..=4 << 20, "bytes of them that it keeps");
        let days = settings.number("inbox.keep_days", 30u64, 1..=366, "days for which it keeps them");
        Self { buckets, items, bytes, age: Duration::from_secs(days * 86_400) }
    }

    /// The values to compare with other services.
    pub fn agreement(&self) -> [(&'static str, String); 4] {
        [
            ("inbox.buckets", self.buckets.to_string()),
            ("inbox.keep", self.items.to_string()),
            ("inbox.keep_bytes", self.bytes.to_string()),
            ("inbox.keep_days", (self.age.as_secs() / 86_400).to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_that_must_be_percent_encoded_is_found_and_any_other_url_is_not() {
        for url in [
            "redis://u:p#w@h:1",
            "redis://u:p/w@h:1/0",
            "redis://:1?w@h:1",
            "redis://u:p@h:1/#",
            "redis-sentinel://u:p?w@s:1/0?sentinelServiceName=main&node=t:1",
        ] {
            assert!(is_cut_short(url), "{url}");
        }
        for url in [
            "redis://127.0.0.1:6379",
            "redis://u:p@h:1/0",
            "redis://u:p@w@h:1/0",
            "redis://u:p%23w@h:1",
            "redis-sentinel://u:p@s:1/0?sentinelServiceName=main&sentinelPassword=a@b",
            "redis-sentinel://s1:26379/0?sentinelServiceName=main&sentinelPassword=p@ss",
            "nonsense",
        ] {
            assert!(!is_cut_short(url), "{url}");
        }
    }
}
