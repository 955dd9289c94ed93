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
mod proto;
mod relay;
pub mod rooms;
mod server;
mod signer;
mod ticker;

use std::sync::{Arc, Mutex};

use tracing::info;
use tutti_service::grpc::{Agreement, GrpcService};
use tutti_service::{Context, Failure, Failures, Registry, Service, Settings};

pub use config::Config;
pub use metrics::{Metrics, RoomLabel};
pub use signer::Signer;

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
        let service = GrpcService::start(&config.grpc, &context).await?;
        let producer =
            kafka::Producer::new(&config.kafka).map_err(|e| Failure::Config(kafka::refused(&e)))?;
        let rooms = Rooms::new(service.client(), config.max_unrelayed).with_replicas(service.replicas());
        info!(listen = %config.grpc.listen, topic = config.topic, "serving");

        let server = Server {
            rooms: rooms.clone(),
            signer: config.signer.clone(),
            metrics: metrics.clone(),
            failures: Failures::default(),
        };
        let redis_metrics = metrics.redis.clone();
        let relay = Arc::new(Relay {
            name: uuid::Uuid::from_u128(rand::random()).to_string(),
            client: service.client(),
            rooms,
            config: Arc::new(config),
            metrics,
            producer: Mutex::new(Some(Arc::new(producer))),
        });
        let agreement = Agreement { group: "rooms", settings: &[] };
        service
            .run(QueueServer::new(server), agreement, &redis_metrics, |latch| async move {
                latch.open();
                ticker::run(relay, context.stop).await;
            })
            .await
    }
}
