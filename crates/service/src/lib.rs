//! The frame that every service stands in.
//!
//! [`run`] is a service's `main`: it reads the configuration ([`settings`]), starts logs
//! ([`logs`]), serves `/live`, `/ready` and `/metrics` ([`admin`]), runs the service, and on
//! SIGTERM or SIGINT asks it to stop and waits for as long as the grace period is.

mod accept;
mod admin;
mod failures;
mod ready;
mod run;
mod settings;

pub mod grpc;
pub mod logs;
pub mod shared;

pub use admin::{Admin, serve as serve_admin};
pub use failures::Failures;
pub use ready::{Latch, Readiness};
pub use run::{
    Context, EXIT_CONFIG, EXIT_FAILURE, Failure, Service, file_limit, raise_file_limit, run, stop_signal,
};
pub use settings::{Mistakes, Settings, not_empty, without_userinfo};

pub use prometheus_client::registry::Registry;
pub use secrecy::{ExposeSecret, SecretString};
pub use tokio_util::sync::CancellationToken;
