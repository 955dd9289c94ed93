//! The settings of the notifications' service.

use std::time::Duration;

use tutti_kafka::ClientSettings;
use tutti_service::grpc::GrpcConfig;
use tutti_service::shared::Inboxes;
use tutti_service::{Settings, not_empty};

/// All settings of the service.
#[derive(Clone)]
pub struct Config {
    /// The gRPC port, and the Redis of the mailboxes.
    pub grpc: GrpcConfig,
    /// The Kafka that notifications are written to.
    pub kafka: ClientSettings,
    /// The Kafka topic of notifications.
    pub topic: String,
    /// How long Kafka may take to acknowledge a notification.
    pub answer_timeout: Duration,
    /// What defines the inboxes.
    pub inboxes: Inboxes,
}

impl Config {
    /// Reads the settings, and reports mistakes to `settings`.
    pub fn configure(settings: &mut Settings) -> Self {
        let grpc = GrpcConfig::configure(settings, 9201);
        let kafka = ClientSettings::for_producer(settings);
        let topic = settings.get_checked(
            "notifications.topic",
            "sse_notifications".to_owned(),
            "the Kafka topic that notifications are written to; it must be the topic of ingest's route for notifications",
            not_empty,
        );
        let answer_ms = settings.number(
            "notifications.answer_ms",
            2000u64,
            // An edge waits for 3 s.
            200..=2500,
            "milliseconds that Kafka may take to acknowledge a notification, before its sender receives an error",
        );
        Self {
            grpc,
            kafka,
            topic,
            answer_timeout: Duration::from_millis(answer_ms),
            inboxes: Inboxes::configure(settings),
        }
    }
}
