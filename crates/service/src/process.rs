//! The life of a service's process: admin port, service, signal, grace period, exit code.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::admin::{self, Admin};
use crate::logs::Logs;
use crate::ready::Readiness;
use crate::service::{Context, Failure, Service};
use crate::settings::Settings;

/// Exit code after a mistake in the configuration (`EX_USAGE` of sysexits.h).
pub const EXIT_CONFIG: u8 = 64;
/// Exit code of a service that cannot go on (`EX_SOFTWARE` of sysexits.h).
pub const EXIT_FAILURE: u8 = 70;

/// A process that runs one service, by the settings that all services have.
pub(crate) struct Process {
    pub(crate) logs: Logs,
    admin: SocketAddr,
    grace: Duration,
    threads: usize,
}

impl Process {
    /// Reads the settings that all services have. `admin` is the default address of the admin port.
    pub(crate) fn configure(settings: &mut Settings, admin: &str) -> Self {
        let level = settings.get(
            "log.level",
            "info".to_owned(),
            "error, warn, info, debug or trace for Tutti's own code, or a filter in the syntax of tracing's EnvFilter",
        );
        let json = settings.choice(
            "log.format",
            "text",
            &[("text", false), ("json", true)],
            "format of log lines: text or json",
        );
        let logs = Logs { level, json };
        if let Err(why) = logs.check() {
            settings.mistake(format!("log.level = {:?}: {why}", logs.level));
        }
        let default = admin.parse().expect("a literal address");
        let admin = settings.get(
            "admin.listen",
            default,
            "address of the admin port, for /live, /ready and /metrics",
        );
        let grace = settings.number(
            "shutdown.grace_seconds",
            30u64,
            1..=3600,
            "seconds that the service may take to stop after SIGTERM",
        );
        let threads = settings.number(
            "runtime.threads",
            0usize,
            0..=1024,
            "threads for the service's own work, beside those of drivers and HTTP workers; 0: one per core",
        );
        Self { logs, admin, grace: Duration::from_secs(grace), threads }
    }

    /// Builds the runtime.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub(crate) fn runtime(&self) -> std::io::Result<tokio::runtime::Runtime> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        if self.threads > 0 {
            builder.worker_threads(self.threads);
        }
        builder.enable_all().build()
    }

    /// Runs a service until it ends. Returns the exit code.
    pub(crate) async fn run<S: Service>(self, config: S::Config) -> u8 {
        let listener = match TcpListener::bind(self.admin).await {
            Ok(listener) => listener,
            Err(error) => {
                error!("admin.listen: cannot listen on {}: {error}", self.admin);
                return EXIT_FAILURE;
            }
        };
        let (registry, metrics) = registry::<S>();
        let readiness = Readiness::default();
        let admin = Admin { readiness: readiness.clone(), registry: Arc::new(registry) };
        let _admin = tokio::spawn(admin::serve(listener, admin));
        info!(service = S::NAME, version = env!("CARGO_PKG_VERSION"), admin = %self.admin, "starting");

        let stop = CancellationToken::new();
        let context = Context { stop: stop.clone(), readiness: readiness.clone(), grace: self.grace };
        let service = S::run(config, metrics, context);
        tokio::pin!(service);
        let ended = tokio::select! {
            ended = &mut service => ended,
            name = stop_signal() => {
                info!(signal = name, grace_seconds = self.grace.as_secs(), "stopping");
                readiness.stop();
                stop.cancel();
                timeout(self.grace, &mut service)
                    .await
                    .unwrap_or_else(|_| Err(Failure::Other("not stopped within the grace period".to_owned())))
            }
        };
        exit_code(ended)
    }
}

/// Returns all settings of a service, with their defaults.
pub fn default_settings<S: Service>() -> Settings {
    let mut settings = Settings::new(None, []);
    Process::configure(&mut settings, S::ADMIN);
    S::configure(&mut settings);
    settings
}

/// Returns a registry with all metrics of a service, and the metrics.
pub fn registry<S: Service>() -> (Registry, S::Metrics) {
    let mut registry = Registry::with_prefix("tutti");
    let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "What runs here", version);
    let metrics = S::metrics(&mut registry);
    (registry, metrics)
}

/// Logs how a service ended. Returns the exit code.
fn exit_code(ended: Result<(), Failure>) -> u8 {
    match ended {
        Ok(()) => {
            info!("stopped");
            0
        }
        Err(Failure::Config(why)) => {
            error!("{why}");
            EXIT_CONFIG
        }
        Err(Failure::Other(why)) => {
            error!("{why}");
            EXIT_FAILURE
        }
    }
}

/// Waits for SIGTERM or SIGINT. Returns the name of the signal.
///
/// # Panics
/// If the process cannot listen to signals.
pub async fn stop_signal() -> &'static str {
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be listened to");
    let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be listened to");
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
