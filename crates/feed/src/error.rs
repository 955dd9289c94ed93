//! Errors of Redis, and what an operator can do about them.

use fred::error::ErrorKind;

use crate::script::is_script_failure;

/// How characters must be written that often make a URL unreadable.
const PERCENT_ENCODING: &str =
    "in the user and the password @ must be written as %40, : as %3A, / as %2F, # as %23, ? as %3F";

/// Returns the text of an error of the driver, with what to do about it where that is known.
pub(crate) fn explain(error: &fred::error::Error) -> String {
    let text = error.to_string();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["WRONGPASS", "NOAUTH", "without any password configured"]) {
        format!("{text}; check the user and the password of redis.url ({PERCENT_ENCODING})")
    } else if says(&["NOPERM"]) {
        format!(
            "{text}; give the user of redis.url its rights: ACL SETUSER name ~tutti:* &tutti:* +@all -@dangerous +info +role"
        )
    } else if says(&["DB index is out of range", "invalid DB index", "SELECT is not allowed in cluster mode"])
    {
        format!(
            "{text}; the number at the end of redis.url is of a database that Redis does not have: leave it out"
        )
    } else if says(&["failed to lookup address"]) {
        format!("{text}; check the host of redis.url ({PERCENT_ENCODING})")
    } else {
        text
    }
}

/// An error of a feed. The text says what was being done, and to which feed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The URL cannot be read as one of a Redis.
    #[error(
        "redis.url is not the URL of a Redis (redis://user:password@host:port/db, redis-sentinel://user:password@sentinel:port/db?sentinelServiceName=name&node=sentinel2:port, or redis-cluster://user:password@node:port?node=node2:port); {percent}: {0}",
        percent = PERCENT_ENCODING
    )]
    Url(fred::error::Error),
    /// The URL has a scheme that Tutti does not know. Unix sockets are not supported.
    #[error(
        "redis.url must begin with redis://, redis-sentinel:// or redis-cluster://, or with TLS with rediss://, \
         rediss-sentinel:// or rediss-cluster://"
    )]
    Scheme,
    /// The Redis is of a version without sharded Pub/Sub. The text is its version.
    #[error("the Redis at redis.url is too old ({0}): Redis 7.0 or newer is needed")]
    TooOld(String),
    /// The Redis may evict keys, by the `maxmemory-policy` given here.
    #[error(
        "the Redis at redis.url has the maxmemory-policy {0}: it throws inboxes, tickets and logs away once its memory \
         is full. Run: CONFIG SET maxmemory-policy noeviction, and set it in its configuration, or in the \
         parameter group of a managed Redis; or set redis.allow_eviction = true, if what is lost does not matter"
    )]
    Evicts(String),
    /// Fewer replicas than wanted have a write. The primary has it.
    #[error("{have} of the {wanted} replicas that redis.wait_replicas wants have it")]
    Replicas {
        /// Number of replicas that must have it.
        wanted: u32,
        /// Number of replicas that have it.
        have: u32,
    },
    /// A command failed or was not answered in time.
    #[error("{doing}: {}", explain(.source))]
    Redis {
        /// What was being done, and to which feed.
        doing: String,
        /// The error of the driver.
        source: fred::error::Error,
    },
    /// Redis answered something that no version of the scripts answers.
    #[error("{doing}: unexpected answer {answer}")]
    Answer {
        /// What was being done, and to which feed.
        doing: String,
        /// The answer.
        answer: String,
    },
    /// A setting of this service differs from that of the services that share this Redis.
    #[error(
        "{name} is {ours} here, but the services that share this Redis use {theirs}; \
         configure the same, or stop them all and delete the field {name} of the key {key}"
    )]
    Disagreement {
        /// Name of the setting.
        name: String,
        /// Value in this service.
        ours: String,
        /// Value in Redis.
        theirs: String,
        /// Key of the hash that holds the setting.
        key: String,
    },
}

impl Error {
    /// Reports whether another attempt would fail as well: Redis holds something that the scripts do not expect.
    pub fn is_internal(&self) -> bool {
        match self {
            Self::Redis { source, .. } => is_script_failure(source),
            Self::Answer { .. } => true,
            _ => false,
        }
    }

    /// Reports whether a command waited in vain. Such an error does not say why.
    pub(crate) fn is_timeout(&self) -> bool {
        matches!(self, Self::Redis { source, .. } if *source.kind() == ErrorKind::Timeout)
    }

    /// Returns a function that turns an error of the driver into [`Error::Redis`], for `map_err`.
    pub(crate) fn redis(doing: impl Into<String>) -> impl FnOnce(fred::error::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Redis { doing, source }
    }
}

#[cfg(test)]
mod tests {
    use fred::error::{Error as DriverError, ErrorKind};

    use super::*;

    #[test]
    fn what_an_operator_can_mend_comes_with_what_to_do() {
        for (says, advice) in [
            ("WRONGPASS invalid username-password pair or user is disabled.", "%40"),
            ("NOPERM this user has no permissions to run the 'hget' command", "ACL SETUSER"),
            ("ERR DB index is out of range", "leave it out"),
            ("failed to lookup address information: Name or service not known", "check the host"),
        ] {
            let source = DriverError::new(ErrorKind::Unknown, says);
            let text = Error::Redis { doing: "reading".into(), source }.to_string();
            assert!(text.contains(says) && text.contains(advice), "{text}");
        }
        let source = DriverError::new(ErrorKind::Timeout, "Request timed out.");
        assert_eq!(explain(&source), source.to_string());
    }
}
