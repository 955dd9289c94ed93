//! What the waiting room's service needs to know.

use std::time::Duration;

use tutti_service::grpc::GrpcConfig;
use tutti_service::shared::{self, Kafka};
use tutti_service::{Settings, not_empty};

use crate::passes::Signer;

/// All settings of the service.
#[derive(Clone)]
pub struct Config {
    /// The gRPC port, and the Redis of the rooms.
    pub grpc: GrpcConfig,
    /// Where changes of rooms are relayed to.
    pub kafka: Kafka,
    /// The topic of the relay.
    pub topic: String,
    /// How its values are written.
    pub format: Format,
    /// How often a room's time goes on, at least.
    pub tick: Duration,
    /// Changes that Kafka may be behind by, before joins are refused.
    pub max_unrelayed: u64,
    /// Signs tokens and passes.
    pub signer: Signer,
}

/// How the values of the relay's topic are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// See `tutti_model::room::to_json`.
    Json,
    /// A `tutti.v1.RoomEvent`.
    Protobuf,
}

impl Config {
    /// Asks for them.
    pub fn configure(settings: &mut Settings) -> Self {
        let grpc = GrpcConfig::configure(settings, 9200);
        let kafka = Kafka::configure(settings, &shared::PRODUCERS_OWN);
        let topic = settings.get_checked(
            "relay.topic",
            "queueing-system".to_owned(),
            "the Kafka topic that every change of a room is copied to",
            not_empty,
        );
        let format = settings.choice(
            "relay.format",
            "json",
            &[("json", Format::Json), ("protobuf", Format::Protobuf)],
            "how its values are written: json or protobuf",
        );
        let tick = settings.number(
            "rooms.tick_ms",
            200u64,
            10..=1000,
            "milliseconds between two steps of a room's time",
        );
        let max_unrelayed = settings.number(
            "rooms.max_unrelayed",
            1_000_000u64,
            1..,
            "changes of a room that Kafka may be behind by, before joins are refused",
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
