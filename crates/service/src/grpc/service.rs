use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tutti_feed::{Client, Connection, RedisMetrics, Replicas, wait_for_agreement, watch_eviction_policy};

use super::config::GrpcConfig;
use super::server::{GeneratedServer, serve};
use crate::ready::Latch;
use crate::service::{Context, Failure};

/// A gRPC service that listens on its port and works on a Redis.
pub struct GrpcService {
    listener: TcpListener,
    redis: Connection,
    replicas: Replicas,
    allow_eviction: bool,
    latch: Latch,
    stop: CancellationToken,
}

/// Settings that all services that share a Redis must agree on.
pub struct Agreement<'a> {
    /// Name of the group of settings.
    pub group: &'a str,
    /// The settings, by their names.
    pub settings: &'a [(&'a str, String)],
}

impl GrpcService {
    /// Listens on the port and begins to connect to Redis. The service is not ready before Redis is there.
    ///
    /// # Errors
    /// [`Failure::Config`] if the URL is not one of a Redis, [`Failure::Other`] if the port is taken.
    pub async fn start(config: &GrpcConfig, context: &Context) -> Result<Self, Failure> {
        let listener = TcpListener::bind(config.listen).await.map_err(|error| {
            Failure::Other(format!("grpc.listen: cannot listen on {}: {error}", config.listen))
        })?;
        let redis = tutti_feed::connect(config.redis_url.expose_secret())
            .map_err(|error| Failure::Config(error.to_string()))?;
        Ok(Self {
            listener,
            replicas: Replicas::new(redis.client.clone(), config.wait_replicas),
            redis,
            allow_eviction: config.allow_eviction,
            latch: context.readiness.latch("redis"),
            stop: context.stop.clone(),
        })
    }

    /// Returns the client of the Redis.
    pub fn client(&self) -> Client {
        self.redis.client.clone()
    }

    /// Returns the replicas that must have a write before it counts.
    pub fn replicas(&self) -> Replicas {
        self.replicas.clone()
    }

    /// Answers calls until the service is to stop. Once Redis is there and agrees, runs `work`, which gets the latch
    /// that makes the service ready.
    ///
    /// # Errors
    /// [`Failure::Config`] if Redis is not one that this service may use, [`Failure::Other`] if the server or the
    /// Redis client ends by itself.
    pub async fn run<W: Future<Output = ()>>(
        self,
        server: impl GeneratedServer,
        agreement: Agreement<'_>,
        metrics: &RedisMetrics,
        work: impl FnOnce(Latch) -> W,
    ) -> Result<(), Failure> {
        let Self { listener, mut redis, allow_eviction, latch, stop, .. } = self;
        let client = redis.client.clone();
        let serving = serve(listener, server, stop.clone());
        let working = async {
            let Agreement { group, settings } = agreement;
            let waits = |why: &str| latch.because(why);
            tokio::select! {
                agreed = wait_for_agreement(&client, group, settings, allow_eviction, waits) => {
                    agreed.map_err(|error| Failure::Config(error.to_string()))?;
                }
                () = stop.cancelled() => return Ok(()),
            }
            work(latch).await;
            Ok(())
        };
        tokio::select! {
            ended = async { tokio::try_join!(serving, working) } => ended.map(drop),
            () = watch_eviction_policy(&client, metrics, allow_eviction) => unreachable!("it watches for ever"),
            () = redis.ended() => Err(Failure::Other("the Redis client ended by itself".to_owned())),
        }
    }
}
