//! What all services have in common: configuration, logs, metrics, health, shutdown, and the gRPC port of those that
//! have one.
//!
//! # The life of a service
//!
//! 1. [`run`] is the `main` of a service. It reads the command line and the configuration ([`Settings`]: defaults, a
//!    TOML file, `TUTTI_...` variables) and reports all mistakes together, with exit code [`EXIT_CONFIG`].
//!    `--check-config` ends here.
//! 2. It starts the logs ([`logs`]), raises the limit of open files, and builds the runtime.
//! 3. The admin port serves `/live`, `/ready` and `/metrics` ([`serve_admin`]). `/ready` answers 503 while a
//!    [`Latch`] is closed, and names what is awaited and why it has not come.
//! 4. [`Service::run`] runs. A service that answers gRPC does so as a [`grpc::GrpcService`].
//! 5. SIGTERM or SIGINT makes `/ready` answer 503 and cancels [`Context::stop`]. The service has the grace period to
//!    end. Then the process exits, with [`EXIT_FAILURE`] if the service had not ended.
//!
//! A [`Failure`] of the service ends the process at any time. Settings that several services read are in [`shared`].
//! A failed request is logged by [`Failures`] under an id that the client gets.

mod accept;
mod admin;
mod failures;
mod metrics;
mod open_files;
mod process;
mod ready;
mod run;
mod service;
mod settings;

pub mod grpc;
pub mod logs;
pub mod shared;

pub use admin::{Admin, serve as serve_admin};
pub use failures::Failures;
pub use metrics::{histogram, metric};
pub use open_files::{file_limit, raise_file_limit};
pub use process::{EXIT_CONFIG, EXIT_FAILURE, default_settings, registry, stop_signal};
pub use ready::{Latch, Readiness};
pub use run::run;
pub use service::{Context, Failure, Service};
pub use settings::{Mistakes, Settings, not_empty, without_userinfo};

pub use prometheus_client::registry::Registry;
pub use secrecy::{ExposeSecret, SecretString};
pub use tokio_util::sync::CancellationToken;
