//! Notifications to users: `tutti-notify` writes what is sent to Kafka, and sets marks in Redis. The service itself keeps
//! nothing, so it may have any number of replicas.
//!
//! 1. [`server`] answers gRPC.
//! 2. [`send`] gives a notification its id, and makes one record for each recipient.
//! 3. The server queues the records in a `tutti_kafka::Producer`, and answers once Kafka has acknowledged all of them. From
//!    there `tutti-ingest` files them in the mailboxes.
//! 4. A mark is one call of a script on the mailbox (`tutti_feed::Mailboxes`).
//!
//! *Invariants:* a send is answered only once Kafka has all its records. A send that is repeated has the same
//! id. Each replica has a producer of its own, so Kafka may hold a repeated notification several times; a mailbox takes
//! its id once.

mod config;
mod metrics;
mod proto;
mod send;
mod server;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing::info;
use tutti_feed::{MailboxLimits, MailboxMetrics, Mailboxes};
use tutti_kafka::{Producer, ProducerOptions};
use tutti_model::names;
use tutti_service::grpc::{Agreement, GrpcService};
use tutti_service::shared::Inboxes;
use tutti_service::{Context, Failure, Failures, Registry, Service, Settings};

pub use config::Config;
pub use metrics::{MarkLabel, Metrics};

use crate::proto::notify_server::NotifyServer;
use crate::server::Server;

/// How long a record waits for others that go to Kafka in the same request.
const LINGER: Duration = Duration::from_millis(2);

/// The service `tutti-notify`.
pub struct Notify;

impl Service for Notify {
    type Config = Config;
    type Metrics = Metrics;
    const NAME: &'static str = "tutti-notify";
    const ABOUT: &'static str = "Takes notifications to users, and keeps the marks of their inboxes.";
    const ADMIN: &'static str = "127.0.0.1:9105";

    fn configure(settings: &mut Settings) -> Config {
        Config::configure(settings)
    }

    fn metrics(registry: &mut Registry) -> Metrics {
        Metrics::new(registry)
    }

    async fn run(config: Config, metrics: Metrics, context: Context) -> Result<(), Failure> {
        let service = GrpcService::start(&config.grpc, &context).await?;
        let options = ProducerOptions {
            client_id: Self::NAME,
            delivery_timeout: Some(config.answer_timeout),
            linger: LINGER,
        };
        let producer = Producer::start(&config.kafka, &options)?;
        info!(listen = %config.grpc.listen, topic = config.topic, "Serving gRPC.");

        let mailboxes = Arc::new(OnceLock::new());
        let server = Server {
            producer,
            topic: config.topic.clone(),
            answer_timeout: config.answer_timeout,
            mailboxes: mailboxes.clone(),
            metrics: metrics.clone(),
            failures: Failures::default(),
        };
        let Inboxes { buckets, items, bytes, age } = config.inboxes;
        let limits = MailboxLimits { items, bytes, age };
        // This service files nothing, so it has nothing to count.
        let counts = MailboxMetrics::default();
        let found = Mailboxes::new(service.client(), names::INBOX, buckets, limits, counts)
            .with_replicas(service.replicas());
        let agreement = Agreement { group: "inbox", settings: &config.inboxes.agreement() };
        // The service does not wait for Kafka: a sender learns that Kafka is away.
        service
            .run(NotifyServer::new(server), agreement, &metrics.redis, |latch| async move {
                mailboxes.get_or_init(|| found);
                latch.open();
            })
            .await
    }
}
