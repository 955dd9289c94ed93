use std::net::SocketAddr;

use secrecy::SecretString;

use crate::settings::Settings;
use crate::shared;

/// The settings that all gRPC services have.
#[derive(Clone)]
pub struct GrpcConfig {
    /// Address of the gRPC port.
    pub listen: SocketAddr,
    /// URL of the Redis that the service works on.
    pub redis_url: SecretString,
    /// The service also runs on a Redis that may evict keys.
    pub allow_eviction: bool,
    /// Number of replicas of Redis that must have a write before it counts.
    pub wait_replicas: u32,
}

impl GrpcConfig {
    /// Reads the settings. The default address is this `port` of the loopback interface.
    pub fn configure(settings: &mut Settings, port: u16) -> Self {
        Self {
            listen: settings.get(
                "grpc.listen",
                SocketAddr::from(([127, 0, 0, 1], port)),
                "address of the gRPC port, which only edges and back ends may reach",
            ),
            redis_url: shared::redis_url(settings),
            allow_eviction: shared::allow_eviction(settings),
            wait_replicas: shared::wait_replicas(settings),
        }
    }
}
