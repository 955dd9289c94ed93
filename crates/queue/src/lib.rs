//! The waiting room. Who comes next is decided in Redis, by scripts: this service may have any number
//! of replicas and no leader.
//!
//! 1. [`server`] answers gRPC: a join, a claim, a change of settings is one call of a script
//!    ([`rooms`]), which makes the change, numbers it and publishes it, in one atomic step.
//! 2. [`ticker`] lets the time of each room go on: it expires, admits, opens (`tick.lua`).
//! 3. [`relay`] copies each room's changes to Kafka.
//!
//! *Invariants:* all that is kept is in Redis; no change is without its record; time is Redis's.
//! Only `kafka.rs` names the driver of Kafka.

mod config;
mod kafka;
mod metrics;
mod passes;
mod proto;
mod relay;
pub mod rooms;
mod server;
mod ticker;

use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tracing::info;
use tutti_feed::Replicas;
use tutti_service::{Context, ExposeSecret as _, Failure, Failures, Registry, Service, Settings, grpc};

pub use config::{Config, Format};
pub use metrics::{Metrics, RoomLabel};
pub use passes::Signer;

use crate::proto::queue_server::QueueServer;
use crate::relay::Relay;
use crate::rooms::Rooms;
use crate::server::Server;

/// The service.
pub struct Queue;

impl Service for Queue {
    type Config = Config;
    type Metrics = Metrics;
    const NAME: &'static str = "tutti-queue";
    const ABOUT: &'static str = "Keeps Tutti's waiting rooms: places in line, admissions, passes.";
    const ADMIN: &'static str = "127.0.0.1:9104";

    fn configure(settings: &mut Settings) -> Config {
        Config::configure(settings)
    }

    fn metrics(registry: &mut Registry) -> Metrics {
        Metrics::new(registry)
    }

    async fn run(config: Config, metrics: Metrics, context: Context) -> Result<(), Failure> {
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|e| Failure::Other(format!("grpc.listen: cannot listen on {}: {e}", config.listen)))?;
        let producer =
            kafka::Producer::new(&config.kafka).map_err(|e| Failure::Config(kafka::refused(&e)))?;
        let mut redis = tutti_feed::connect(config.redis_url.expose_secret())
            .map_err(|e| Failure::Config(e.to_string()))?;
        let latch = context.readiness.latch("redis");
        let replicas = Replicas::new(redis.client.clone(), config.wait_replicas);
        let rooms = Rooms::new(redis.client.clone(), config.max_unrelayed).with_replicas(replicas);
        info!(listen = %config.listen, topic = config.topic, "serving");

        let server = Server {
            rooms: rooms.clone(),
            signer: config.signer.clone(),
            metrics: metrics.clone(),
            failures: Failures::default(),
        };
        let serving = grpc::serve(listener, QueueServer::new(server), context.stop.clone());
        let (allow_eviction, redis_metrics) = (config.allow_eviction, metrics.redis.clone());
        let relay = Arc::new(Relay {
            name: uuid::Uuid::from_u128(rand::random()).to_string(),
            client: redis.client.clone(),
            rooms: rooms.clone(),
            config: Arc::new(config),
            metrics,
            producer: Mutex::new(Some(Arc::new(producer))),
        });
        let client = redis.client.clone();
        let watching = tutti_feed::watch_eviction_policy(&client, &redis_metrics, allow_eviction);
        let ticking = async {
            tutti_feed::wait_for_agreement(&client, "rooms", &[], allow_eviction, |why| latch.because(why))
                .await
                .map_err(|e| Failure::Config(e.to_string()))?;
            latch.open();
            ticker::run(relay, context.stop.clone()).await;
            Ok(())
        };
        tokio::select! {
            served = async { tokio::try_join!(serving, ticking) } => served.map(drop),
            () = watching => unreachable!("it watches for ever"),
            () = redis.ended() => Err(Failure::Other("the Redis client ended by itself".into())),
        }
    }
}
