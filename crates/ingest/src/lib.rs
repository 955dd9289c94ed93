//! Kafka to Redis. The path of a record:
//!
//! 1. [`route`] joins the consumer group of a topic; each partition that it is given becomes a
//!    task of its own.
//! 2. [`partition`] asks Redis how far this partition got, and fetches from exactly there. Then:
//!    *poll, decode, append, store the offset*, one batch at a time.
//! 3. [`batch`] turns values into the changes of a feed's record, or says why not; [`sink`] puts them
//!    there. Notifications go to mailboxes instead: [`mail`], those of all partitions together: [`filer`].
//! 4. What is not valid goes to [`rejected`]'s topic, with the reason.
//!
//! *Invariants:* Redis, not the group's committed offset, is the truth about what reached Redis.
//! An offset is stored only after Redis answered. Only `kafka.rs` names the driver.

mod batch;
mod config;
mod filer;
mod kafka;
mod mail;
mod metrics;
mod partition;
mod rejected;
mod route;
mod sink;

use std::sync::Arc;

use tokio::task::JoinSet;
use tutti_feed::Replicas;
use tutti_service::{Context, ExposeSecret as _, Failure, Registry, Service, Settings};

pub use config::{Config, Kind, Route, Start};
pub use metrics::{Metrics, Partition as PartitionLabel, RejectionLabel, Topic};

/// The service.
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

        let config = Arc::new(config);
        let mut routes = JoinSet::new();
        let replicas = Replicas::new(redis.client.clone(), config.wait_replicas);
        for (route, latch) in config.routes.iter().cloned().zip(kafka_latches) {
            let client = redis.client.clone();
            routes.spawn(route::run(
                config.clone(),
                route,
                client,
                replicas.clone(),
                metrics.clone(),
                latch,
                context.stop.clone(),
            ));
        }
        let client = redis.client.clone();
        let watching = tutti_feed::watch_eviction_policy(&client, &metrics.redis, config.allow_eviction);
        let telling = async {
            if config.routes.iter().any(|route| matches!(route.kind, Kind::Notifications { .. })) {
                let mailboxes = route::mailboxes(&config, &client, &replicas, &metrics);
                tutti_feed::announce_evictions(&client, &mailboxes).await;
            }
        };
        tokio::select! {
            ((), ()) = async { tokio::join!(watching, telling) } => unreachable!("it watches for ever"),
            Some(ended) = routes.join_next() => ended.map_err(|e| Failure::Other(e.to_string()))?,
            () = redis.ended() => Err(Failure::Other("the Redis client ended by itself".into())),
        }?;
        while let Some(ended) = routes.join_next().await {
            ended.map_err(|e| Failure::Other(e.to_string()))??;
        }
        Ok(())
    }
}
