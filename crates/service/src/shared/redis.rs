//! The settings of Redis.

use secrecy::{ExposeSecret as _, SecretString};

use crate::settings::Settings;

/// Reads `redis.url`, the URL of the Redis that carries the feeds.
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
            "redis.url names Sentinels and lacks ?sentinelServiceName=, the name by which they know the primary",
        );
    }
    url
}

/// Reads `redis.wait_replicas`, the number of replicas of Redis that must have a write before it counts.
pub fn wait_replicas(settings: &mut Settings) -> u32 {
    settings.number(
        "redis.wait_replicas",
        0u32,
        0..=10,
        "replicas of Redis that must have a write before it counts; else it is repeated; 0: the primary is enough",
    )
}

/// Reads `redis.allow_eviction`: whether a service also runs on a Redis that may evict keys.
pub fn allow_eviction(settings: &mut Settings) -> bool {
    settings.get(
        "redis.allow_eviction",
        false,
        "also run on a Redis whose maxmemory-policy is not noeviction: it may lose inboxes, tickets and logs",
    )
}

/// Reports whether a URL ends its host before its user and password are over, because they hold a character that does
/// so.
fn is_cut_short(url: &str) -> bool {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let (host, more) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // The query of a Sentinel or Cluster URL may hold an @.
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
