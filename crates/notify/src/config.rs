//! What the notifications' service needs to know.

use std::time::Duration;

use tutti_service::grpc::GrpcConfig;
use tutti_service::shared::{self, Inboxes, Kafka};
use tutti_service::{Settings, not_empty};

/// All settings of the service.
#[derive(Clone)]
pub struct Config {
    /// The gRPC port, and the Redis of the mailboxes.
    pub grpc: GrpcConfig,
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
        let grpc = GrpcConfig::configure(settings, 9201);
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
            grpc,
            kafka,
            topic,
            answer: Duration::from_millis(answer),
            inboxes: Inboxes::configure(settings),
        }
    }
}
