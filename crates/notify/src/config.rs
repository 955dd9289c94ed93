//! What the notifications' service needs to know.

use std::net::SocketAddr;
use std::time::Duration;

use tutti_service::shared::{self, Inboxes, Kafka};
use tutti_service::{SecretString, Settings};

/// All settings of the service.
#[derive(Clone)]
pub struct Config {
    /// Where gRPC is served.
    pub listen: SocketAddr,
    /// The Redis of the mailboxes.
    pub redis_url: SecretString,
    /// Where notifications are sent to.
    pub kafka: Kafka,
    /// Their topic.
    pub topic: String,
    /// How long Kafka may take to acknowledge.
    pub answer: Duration,
    /// What defines the inboxes.
    pub inboxes: Inboxes,
}

/// Settings of the driver that a send counts on.
const RESERVED: [&str; 5] =
    ["bootstrap.servers", "enable.idempotence", "acks", "message.timeout.ms", "transactional.id"];

impl Config {
    /// Asks for them.
    pub fn configure(settings: &mut Settings) -> Self {
        let listen = settings.get(
            "grpc.listen",
            SocketAddr::from(([127, 0, 0, 1], 9201)),
            "address of the gRPC port, which only edges and back ends may reach",
            |_| Ok(()),
        );
        let redis_url = shared::redis_url(settings);
        let kafka = Kafka::configure(settings, &RESERVED);
        let topic = settings.get(
            "notifications.topic",
            "sse_notifications".to_owned(),
            "the Kafka topic that notifications are sent to",
            |t: &String| if t.is_empty() { Err("must not be empty") } else { Ok(()) },
        );
        let answer = settings.get(
            "notifications.answer_ms",
            2000u64,
            "milliseconds that Kafka may take to acknowledge a notification, before its sender is told",
            // An edge gives up after 3 s.
            |n| if (200..=2500).contains(n) { Ok(()) } else { Err("must be 200 to 2500") },
        );
        Self {
            listen,
            redis_url,
            kafka,
            topic,
            answer: Duration::from_millis(answer),
            inboxes: Inboxes::configure(settings),
        }
    }
}
