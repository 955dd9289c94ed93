//! What the notifications' service needs to know.

use std::net::SocketAddr;
use std::time::Duration;

use tutti_service::shared::{self, Inboxes, Kafka};
use tutti_service::{SecretString, Settings, not_empty};

/// All settings of the service.
#[derive(Clone)]
pub struct Config {
    /// Where gRPC is served.
    pub listen: SocketAddr,
    /// The Redis of the mailboxes.
    pub redis_url: SecretString,
    /// The service starts also on a Redis that may evict keys (`redis.allow_eviction`).
    pub allow_eviction: bool,
    /// A write counts when so many replicas of it have it.
    pub wait_replicas: u32,
    /// Where notifications are sent to.
    pub kafka: Kafka,
    /// Their topic.
    pub topic: String,
    /// How long Kafka may take to acknowledge.
    pub answer: Duration,
    /// What defines the inboxes.
    pub inboxes: Inboxes,
}

impl Config {
    /// Asks for them.
    pub fn configure(settings: &mut Settings) -> Self {
        let listen = shared::grpc_listen(settings, 9201);
        let redis_url = shared::redis_url(settings);
        let allow_eviction = shared::allow_eviction(settings);
        let wait_replicas = shared::wait_replicas(settings);
        let kafka = Kafka::configure(settings, &shared::PRODUCERS_OWN);
        let topic = settings.get_checked(
            "notifications.topic",
            "sse_notifications".to_owned(),
            "the Kafka topic that notifications are sent to",
            not_empty,
        );
        let answer = settings.number(
            "notifications.answer_ms",
            2000u64,
            // An edge gives up after 3 s.
            200..=2500,
            "milliseconds that Kafka may take to acknowledge a notification, before its sender is told",
        );
        Self {
            listen,
            redis_url,
            allow_eviction,
            wait_replicas,
            kafka,
            topic,
            answer: Duration::from_millis(answer),
            inboxes: Inboxes::configure(settings),
        }
    }
}
