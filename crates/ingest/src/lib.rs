//! Kafka to Redis: `tutti-ingest` carries records from topics to feeds and mailboxes.
//!
//! The path of a record:
//!
//! 1. [`route`] joins the consumer group of a topic. Each partition that the group assigns gets a task of its own
//!    ([`tasks`]), and [`assembly`] chooses the decoder and the sink of its kind.
//! 2. [`partition`] asks Redis where the partition stands, and fetches from exactly there. Then: *poll, decode, append,
//!    store the offset*, one batch at a time.
//! 3. [`decode`] turns one record ([`record`]) into what a sink stores, or says why it is not valid. [`batch`] holds many.
//! 4. A sink stores a batch ([`sink`]). Fixes and events go to a feed, whose head holds the partition's position
//!    ([`feed_sink`]). Notifications go to mailboxes, which drop what they already have ([`mailbox_sink`]); a [`filer`]
//!    files those of all partitions together.
//! 5. Records that are not valid go to the topic `<topic>.rejected`, with the reason ([`rejected`]).
//!
//! *Invariants:* Redis, not the offset that the group committed, is the truth about what reached Redis. An offset is
//! stored in the group only after Redis answered. Nothing is passed over in silence: records that Kafka lost before they
//! were read are announced to clients as a gap, and records behind an open transaction as stale data.

mod assembly;
mod batch;
mod config;
mod decode;
mod feed_sink;
mod filer;
mod mailbox_sink;
mod metrics;
mod partition;
mod record;
mod rejected;
mod route;
mod sink;
mod tasks;

use std::sync::Arc;

use tokio::task::JoinSet;
use tutti_feed::Replicas;
use tutti_service::{Context, ExposeSecret as _, Failure, Registry, Service, Settings};

use crate::assembly::Services;

pub use config::{Config, Kind, Route, Start};
pub use metrics::{Metrics, RejectionLabel, Topic};

/// The service `tutti-ingest`.
pub struct Ingest;

impl Service for Ingest {
    type Config = Config;
    type Metrics = Metrics;
    const NAME: &'static str = "tutti-ingest";
    const ABOUT: &'static str = "Carries records from Kafka to Tutti's feeds in Redis.";
    const ADMIN: &'static str = "127.0.0.1:9101";

    fn configure(settings: &mut Settings) -> Config {
        Config::configure(settings)
    }

    fn metrics(registry: &mut Registry) -> Metrics {
        Metrics::new(registry)
    }

    async fn run(config: Config, metrics: Metrics, context: Context) -> Result<(), Failure> {
        let mut redis = tutti_feed::connect(config.redis_url.expose_secret())
            .map_err(|e| Failure::Config(e.to_string()))?;
        let redis_latch = context.readiness.latch("redis");
        let kafka_latches: Vec<_> = config
            .routes
            .iter()
            .map(|route| {
                route.awaited.then(|| context.readiness.latch(format!("kafka topic {}", route.topic)))
            })
            .collect();
        let (locations, inboxes) = (config.locations.agreement(), config.inboxes.agreement());
        let waits = |why: &str| redis_latch.because(why);
        let allowed = config.allow_eviction;
        let agreed = async {
            tutti_feed::wait_for_agreement(&redis.client, "locations", &locations, allowed, waits).await?;
            tutti_feed::wait_for_agreement(&redis.client, "inbox", &inboxes, allowed, waits).await
        };
        tokio::select! {
            agreed = agreed => agreed.map_err(|e| Failure::Config(e.to_string()))?,
            () = context.stop.cancelled() => return Ok(()),
        }
        redis_latch.open();

        let client = redis.client.clone();
        let services = Services {
            replicas: Replicas::new(client.clone(), config.wait_replicas),
            redis: client.clone(),
            config: Arc::new(config),
            metrics,
            stop: context.stop,
        };
        let config = &services.config;
        let mut routes = JoinSet::new();
        for (route, latch) in config.routes.iter().cloned().zip(kafka_latches) {
            routes.spawn(route::run(services.clone(), route, latch));
        }
        let watching =
            tutti_feed::watch_eviction_policy(&client, &services.metrics.redis, config.allow_eviction);
        let telling = async {
            if config.routes.iter().any(|route| matches!(route.kind, Kind::Notifications { .. })) {
                tutti_feed::announce_evictions(&client, &services.mailboxes()).await;
            }
        };
        tokio::select! {
            ((), ()) = async { tokio::join!(watching, telling) } => unreachable!("the eviction policy is watched for ever"),
            Some(ended) = routes.join_next() => ended.map_err(|e| Failure::Other(e.to_string()))?,
            () = redis.ended() => Err(Failure::Other("the Redis client ended by itself".into())),
        }?;
        while let Some(ended) = routes.join_next().await {
            ended.map_err(|e| Failure::Other(e.to_string()))??;
        }
        Ok(())
    }
}
