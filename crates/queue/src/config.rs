//! The settings of the service of the waiting room.

use std::time::Duration;

use tutti_kafka::ClientSettings;
use tutti_model::Format;
use tutti_service::grpc::GrpcConfig;
use tutti_service::{Settings, not_empty};

use crate::signer::Signer;

/// All settings of the service.
#[derive(Clone)]
pub struct Config {
    /// The gRPC port, and the Redis that keeps the rooms.
    pub grpc: GrpcConfig,
    /// The Kafka to which changes of rooms are relayed.
    pub kafka: ClientSettings,
    /// The topic to which changes of rooms are relayed.
    pub topic: String,
    /// The format of the values of that topic.
    pub format: Format,
    /// The interval at which the time of a room moves forward.
    pub tick: Duration,
    /// The number of changes of a room that Kafka may be behind by before joins are refused.
    pub max_unrelayed: u64,
    /// The signer of tokens and passes.
    pub signer: Signer,
}

impl Config {
    /// Reads the settings.
    pub fn configure(settings: &mut Settings) -> Self {
        let grpc = GrpcConfig::configure(settings, 9200);
        let kafka = ClientSettings::for_producer(settings);
        let topic = settings.get_checked(
            "relay.topic",
            "queueing-system".to_owned(),
            "Kafka topic to which every change of a room is copied",
            not_empty,
        );
        let format = settings.choice(
            "relay.format",
            "json",
            &[("json", Format::Json), ("protobuf", Format::Protobuf)],
            "format of the values of relay.topic: json or protobuf",
        );
        let tick = settings.number(
            "rooms.tick_ms",
            200u64,
            10..=1000,
            "milliseconds between two ticks of a room, which expire and admit tickets",
        );
        let max_unrelayed = settings.number(
            "rooms.max_unrelayed",
            1_000_000u64,
            1..,
            "changes of a room that Kafka may be behind by before joins are refused",
        );
        Self {
            grpc,
            kafka,
            topic,
            format,
            tick: Duration::from_millis(tick),
            max_unrelayed,
            signer: Signer::configure(settings),
        }
    }
}
