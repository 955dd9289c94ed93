//! Notifications to users: what is sent goes to Kafka, what is marked is marked in Redis. The service
//! itself keeps nothing: it may have any number of replicas.
//!
//! 1. [`server`] answers gRPC.
//! 2. [`send`] gives a notification its id, and makes it one record for each recipient.
//! 3. [`kafka`] hands the records over, and waits until Kafka has them. From there `tutti-ingest`
//!    files them in the mailboxes.
//! 4. A mark is one call of a script on the mailbox (`tutti_feed::Mailboxes`).
//!
//! *Invariants:* a send is answered only once Kafka has all its records; the same send, repeated, has
//! the same id. Only `kafka.rs` names the driver of Kafka.

mod config;
mod kafka;
mod metrics;
mod proto;
mod send;
mod server;

use std::sync::{Arc, OnceLock};

use tokio::net::TcpListener;
use tracing::info;
use tutti_feed::{MailboxLimits, MailboxMetrics, Mailboxes, Replicas};
use tutti_model::names;
use tutti_service::shared::Inboxes;
use tutti_service::{Context, ExposeSecret as _, Failure, Failures, Registry, Service, Settings, grpc};

pub use config::Config;
pub use metrics::{MarkLabel, Metrics};

use crate::proto::notify_server::NotifyServer;
use crate::server::Server;

/// The service.
pub struct Notify;

impl Service for Notify {
    type Config = Config;
    type Metrics = Metrics;
    const NAME: &'static str = "tutti-notify";
    const ABOUT: &'static str = "Takes notifications to users, and keeps their inboxes' marks.";
    const ADMIN: &'static str = "127.0.0.1:9105";

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
        let producer = kafka::Producer::new(&config.kafka, config.answer)
            .map_err(|e| Failure::Config(kafka::refused(&e)))?;
        let mut redis = tutti_feed::connect(config.redis_url.expose_secret())
            .map_err(|e| Failure::Config(e.to_string()))?;
        let client = redis.client.clone();
        let latch = context.readiness.latch("redis");
        info!(listen = %config.listen, topic = config.topic, "serving");

        let mailboxes = Arc::new(OnceLock::new());
        let server = Server {
            producer,
            topic: config.topic.clone(),
            answer: config.answer,
            mailboxes: mailboxes.clone(),
            metrics: metrics.clone(),
            failures: Failures::default(),
        };
        let serving = grpc::serve(listener, NotifyServer::new(server), context.stop.clone());
        // Kafka is not awaited: who sends is told that it is away.
        let agreeing = async {
            let agreement = config.inboxes.agreement();
            let waits = |why: &str| latch.because(why);
            let allowed = config.allow_eviction;
            tokio::select! {
                agreed = tutti_feed::wait_for_agreement(&client, "inbox", &agreement, allowed, waits) => {
                    agreed.map_err(|e| Failure::Config(e.to_string()))?;
                }
                () = context.stop.cancelled() => return Ok(()),
            }
            let Inboxes { buckets, items, bytes, age } = config.inboxes;
            mailboxes.get_or_init(|| {
                let keep = MailboxLimits { items, bytes, age };
                // It files nothing.
                Mailboxes::new(client.clone(), names::INBOX, buckets, keep, MailboxMetrics::default())
                    .with_replicas(Replicas::new(client.clone(), config.wait_replicas))
            });
            latch.open();
            Ok::<(), Failure>(())
        };
        let watching = tutti_feed::watch_eviction_policy(&client, &metrics.redis, config.allow_eviction);
        tokio::select! {
            served = async { tokio::try_join!(serving, agreeing) } => served.map(drop),
            () = watching => unreachable!("it watches for ever"),
            () = redis.ended() => Err(Failure::Other("the Redis client ended by itself".into())),
        }
    }
}
