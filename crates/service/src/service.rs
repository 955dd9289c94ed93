//! What a service is to the code that runs it.

use std::future::Future;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::ready::Readiness;
use crate::settings::Settings;

/// A service: how it is configured, what it counts, and how it runs.
pub trait Service {
    /// The configuration, once it was checked.
    type Config: Send + 'static;
    /// The metrics.
    type Metrics;
    /// Name of the service, such as `tutti-ingest`.
    const NAME: &'static str;
    /// One sentence on the service, for `--help`.
    const ABOUT: &'static str;
    /// Default address of the admin port.
    const ADMIN: &'static str;

    /// Reads the settings of the service. Mistakes are added to `settings`.
    fn configure(settings: &mut Settings) -> Self::Config;

    /// Registers the metrics of the service.
    fn metrics(registry: &mut Registry) -> Self::Metrics;

    /// Runs the service until `context.stop` is cancelled.
    ///
    /// # Errors
    /// A [`Failure`] ends the process.
    fn run(
        config: Self::Config,
        metrics: Self::Metrics,
        context: Context,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// What a running service gets.
pub struct Context {
    /// Cancelled when the service is to stop.
    pub stop: CancellationToken,
    /// What the service waits for before it is ready.
    pub readiness: Readiness,
    /// How long the service may take to stop.
    pub grace: Duration,
}

/// Why a service ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration does not fit what the service found, for example the Redis that it connects to.
    #[error("{0}")]
    Config(String),
    /// Any other failure that the service cannot recover from.
    #[error("{0}")]
    Other(String),
}
