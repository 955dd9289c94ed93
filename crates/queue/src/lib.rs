//! The service of the waiting room. Scripts in Redis decide who is admitted, so that the service may have any number of
//! replicas and needs no leader.
//!
//! The path of a visit:
//!
//! 1. [`server`] answers gRPC. A join, a claim or a change of settings runs one script ([`rooms`]), which makes the change,
//!    numbers it, and publishes its record to the edges, in one atomic step.
//! 2. [`ticker`] runs `tick.lua` for each room every `rooms.tick_ms`, at every replica. The script opens the room, ends
//!    tickets whose time is over, admits those whose turn it is, and once a second appends a pulse.
//! 3. [`signer`] signs the token with which a visitor returns to the ticket, and the pass of an admitted visitor, which the
//!    application behind the waiting room verifies by itself.
//! 4. [`relay`] copies the records of each room from its log to Kafka, in order.
//!
//! A ticket is named by room, epoch, number and time of joining. A Redis that loses its newest changes in a failover gives
//! their numbers out again, but not at the same time, so that a token never fits another visitor's ticket.
//!
//! *Invariants:* all state is in Redis; every change has its record; all times are the clock of Redis.

mod config;
mod metrics;
mod proto;
mod relay;
pub mod rooms;
mod server;
mod signer;
mod ticker;

use std::sync::Arc;
use std::time::Duration;

use tracing::info;
use tutti_kafka::{Producer, ProducerOptions};
use tutti_service::grpc::{Agreement, GrpcService};
use tutti_service::{Context, Failure, Failures, Registry, Service, Settings};

pub use config::Config;
pub use metrics::{Metrics, RoomLabel};
pub use signer::Signer;

use crate::proto::queue_server::QueueServer;
use crate::relay::Relay;
use crate::rooms::Rooms;
use crate::server::Server;

/// The time that a record waits for others that go to Kafka in the same request.
const LINGER: Duration = Duration::from_millis(5);

/// The service of the waiting room.
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
        let options = ProducerOptions { client_id: Self::NAME, delivery_timeout: None, linger: LINGER };
        let producer = Producer::start(&config.kafka, &options)?;
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
            producer,
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
