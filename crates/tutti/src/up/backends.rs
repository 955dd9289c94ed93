//! Kafka and Redis: those of the developer, or an embedded broker and a private Redis.

use super::options::{Options, Ports};
use crate::broker::Broker;
use crate::local::Redis;

/// The topic of the live map.
pub const TOPIC: &str = "media-locations";
/// Partitions of each topic that the embedded broker has.
pub(super) const PARTITIONS: i32 = 6;
/// The topic that the changes of waiting rooms are relayed to.
pub(super) const ROOMS_TOPIC: &str = "queueing-system";
/// The topic that notifications are sent to.
const NOTIFICATIONS_TOPIC: &str = "sse_notifications";

/// Kafka and Redis, and the processes that they run in where those are private. These end when this is dropped.
pub(super) struct Backends {
    /// Addresses of Kafka, `host:port,...`.
    pub(super) kafka: String,
    /// The URL of Redis.
    pub(super) redis: String,
    /// Whether Kafka is the embedded broker.
    pub(super) embeds_kafka: bool,
    _broker: Option<Broker>,
    _private_redis: Option<Redis>,
}

impl Backends {
    /// Starts what the developer does not bring.
    ///
    /// # Errors
    /// If it does not start.
    pub(super) async fn start(options: &Options, ports: &Ports) -> anyhow::Result<Self> {
        let (redis, private_redis) = match &options.redis {
            Some(url) => (url.clone(), None),
            None => {
                let private = Redis::start(ports.redis)?;
                (private.url(), Some(private))
            }
        };
        let (kafka, broker) = match &options.kafka {
            Some(brokers) => (brokers.clone(), None),
            None => {
                let rejected = [TOPIC, NOTIFICATIONS_TOPIC].map(|topic| format!("{topic}.rejected"));
                let topics = [
                    (TOPIC, PARTITIONS),
                    (&rejected[0], 1),
                    (ROOMS_TOPIC, PARTITIONS),
                    (NOTIFICATIONS_TOPIC, PARTITIONS),
                    (&rejected[1], 1),
                ];
                let broker = Broker::start(ports.kafka, &topics).await?;
                (broker.address().to_owned(), Some(broker))
            }
        };
        let embeds_kafka = broker.is_some();
        Ok(Self { kafka, redis, embeds_kafka, _broker: broker, _private_redis: private_redis })
    }
}
