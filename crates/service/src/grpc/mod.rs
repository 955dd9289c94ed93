//! What all gRPC services have in common: their settings, their port, the Redis that they work on, and how they say
//! that they do not answer.
//!
//! 1. [`GrpcConfig::configure`] reads the settings.
//! 2. [`GrpcService::start`] listens on the port and begins to connect to Redis.
//! 3. [`GrpcService::run`] answers calls, and runs the work of the service once Redis is there and agrees with its
//!    settings.
//! 4. A call that is not answered ends with a [`refusal`], of which the caller learns the reason, or a [`failure`],
//!    of which the caller learns a request id and the log the reason.

mod config;
mod server;
mod service;
mod status;

pub use self::config::GrpcConfig;
pub use self::server::GeneratedServer;
pub use self::service::{Agreement, GrpcService};
pub use self::status::{REASON, REQUEST_ID, failure, refusal};
