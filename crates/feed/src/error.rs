//! What can go wrong between us and Redis.

use fred::error::ErrorKind;

use crate::script::is_script_failure;

/// What is wrong with many a URL that cannot be read.
const PERCENT: &str =
    "in the user and the password @ must be written as %40, : as %3A, / as %2F, # as %23, ? as %3F";

/// An error of the driver, and what to do about it, where that is known.
pub(crate) fn explain(error: &fred::error::Error) -> String {
    let text = error.to_string();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["WRONGPASS", "NOAUTH", "without any password configured"]) {
        format!("{text}; check the user and the password of redis.url ({PERCENT})")
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
        format!("{text}; check the host of redis.url ({PERCENT})")
    } else {
        text
    }
}

/// An error of a feed; its text says what was being done, and to what.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The URL is not one of a Redis.
    #[error(
        "redis.url is not the URL of a Redis (redis://user:password@host:port/db, redis-sentinel://user:password@sentinel:port/db?sentinelServiceName=name&node=sentinel2:port, or redis-cluster://user:password@node:port?node=node2:port); {percent}: {0}",
        percent = PERCENT
    )]
    Url(fred::error::Error),
    /// TLS and Unix sockets are not supported.
    #[error(
        "redis.url must begin with redis://, redis-sentinel:// or redis-cluster://; TLS is not supported"
    )]
    Scheme,
    /// It has no sharded Pub/Sub.
    #[error("the Redis at redis.url is too old ({0}): Redis 7.0 or newer is needed")]
    TooOld(String),
    /// Redis may evict keys, by the `maxmemory-policy` given here.
    #[error(
        "the Redis at redis.url has the maxmemory-policy {0}: it throws inboxes, tickets and logs away once its memory \
         is full. Run: CONFIG SET maxmemory-policy noeviction, and set it in its configuration, or in the \
         parameter group of a managed Redis; or set redis.allow_eviction = true, if what is lost does not matter"
    )]
    Evicts(String),
    /// Fewer replicas than wanted have a write, which is in the primary.
    #[error("{have} of the {wanted} replicas that redis.wait_replicas wants have it")]
    Replicas {
        /// That many are wanted.
        wanted: u32,
        /// That many have it.
        have: u32,
    },
    /// A command failed or was not answered in time.
    #[error("{doing}: {}", explain(.source))]
    Redis {
        /// What was being done, and to which feed.
        doing: String,
        /// What the driver says.
        source: fred::error::Error,
    },
    /// Redis answered something that no version of our scripts answers.
    #[error("{doing}: unexpected answer {answer}")]
    Answer {
        /// What was being done, and to which feed.
        doing: String,
        /// The answer.
        answer: String,
    },
    /// This service is configured otherwise than the services that share this Redis.
    #[error(
        "{name} is {ours} here, but the services that share this Redis use {theirs}; \
         configure the same, or stop them all and delete the field {name} of the key {key}"
    )]
    Disagreement {
        /// The setting.
        name: String,
        /// Its value here.
        ours: String,
        /// Its value in Redis.
        theirs: String,
        /// The hash that holds it.
        key: String,
    },
}

impl Error {
    /// Whether trying again is of no use: what Redis holds is not what our scripts expect.
    pub fn is_internal(&self) -> bool {
        match self {
            Self::Redis { source, .. } => is_script_failure(source),
            Self::Answer { .. } => true,
            _ => false,
        }
    }

    /// Whether a command waited in vain, which does not say why.
    pub(crate) fn is_timeout(&self) -> bool {
        matches!(self, Self::Redis { source, .. } if *source.kind() == ErrorKind::Timeout)
    }

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
