//! What can go wrong between us and Redis.

/// An error of a feed; its text says what was being done, and to what.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The URL is not one of a Redis.
    #[error(
        "redis.url is not the URL of a Redis (redis://user:password@host:port/db, redis-sentinel://user:password@sentinel:port/db?sentinelServiceName=name&node=sentinel2:port, or redis-cluster://user:password@node:port?node=node2:port): {0}"
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
    /// Fewer replicas than wanted have a write, which is in the primary.
    #[error("{have} of the {wanted} replicas that redis.wait_replicas wants have it")]
    Replicas {
        /// That many are wanted.
        wanted: u32,
        /// That many have it.
        have: u32,
    },
    /// A command failed or was not answered in time.
    #[error("{doing}: {source}")]
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
    pub(crate) fn redis(doing: impl Into<String>) -> impl FnOnce(fred::error::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Redis { doing, source }
    }
}
