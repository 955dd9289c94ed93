//! A service's `main`.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::admin::{self, Admin};
use crate::logs::Logs;
use crate::ready::Readiness;
use crate::settings::Settings;

/// The exit code for a mistake in the configuration (`EX_USAGE` of sysexits.h).
pub const EXIT_CONFIG: u8 = 64;
/// The exit code of a service that cannot go on (`EX_SOFTWARE`).
pub const EXIT_FAILURE: u8 = 70;

/// What the frame hands to a service.
pub struct Context {
    /// Cancelled when the service is to stop.
    pub stop: CancellationToken,
    /// What it waits for before it is ready.
    pub readiness: Readiness,
    /// How long stopping may take.
    pub grace: Duration,
}

/// What a service is to the frame.
pub trait Service {
    /// Its configuration, checked.
    type Config: Send + 'static;
    /// Its metrics.
    type Metrics;
    /// Its name, as in `tutti-ingest`.
    const NAME: &'static str;
    /// One sentence for `--help`.
    const ABOUT: &'static str;
    /// Where its admin port listens unless configured.
    const ADMIN: &'static str;

    /// Asks for its settings.
    fn configure(settings: &mut Settings) -> Self::Config;
    /// Registers its metrics.
    fn metrics(registry: &mut Registry) -> Self::Metrics;
    /// Runs until it is told to stop. An error ends the process; one of [`Failure::Config`] with
    /// [`EXIT_CONFIG`].
    fn run(
        config: Self::Config,
        metrics: Self::Metrics,
        context: Context,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Why a service ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration does not fit what is there.
    #[error("{0}")]
    Config(String),
    /// Anything else that it cannot recover from.
    #[error("{0}")]
    Other(String),
}

/// The `main` of a service: never returns before it has stopped.
pub fn run<S: Service + 'static>() -> ExitCode {
    let arguments = match Arguments::parse::<S>() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_CONFIG) } else { ExitCode::SUCCESS };
        }
    };
    let mut settings = Settings::new(arguments.config.as_deref(), variables());
    let frame = Frame::configure(&mut settings, S::ADMIN);
    let config = S::configure(&mut settings);
    if let Err(mistakes) = settings.finish() {
        eprint!("{}: {mistakes}", S::NAME);
        return ExitCode::from(EXIT_CONFIG);
    }
    if arguments.check_config {
        print!("{}", settings.describe());
        for name in settings.unknown_variables() {
            eprintln!("{name} sets nothing: no setting has that name");
        }
        return ExitCode::SUCCESS;
    }
    frame.logs.start().expect("the filter was checked with the configuration");
    raise_file_limit();
    for name in settings.unknown_variables() {
        warn!(name, "this variable sets nothing; see --check-config");
    }
    let runtime = match frame.runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{}: no runtime: {error}", S::NAME);
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    // As a task: what waits in `block_on` itself is woken on a thread of its own, each time.
    let service = runtime.spawn(frame.run::<S>(config));
    let code = runtime.block_on(service).unwrap_or(EXIT_FAILURE);
    // Blocking calls into drivers may hang for their own timeouts; the process does not wait.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// The environment; what is not UTF-8 is none of ours.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Raises the limit of open files to the most that is allowed: a stream is an open file, and
/// container engines begin at as few as 1024.
pub fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most).map(|()| most));
    match raised {
        Ok(most) => debug!(most, "open files"),
        Err(error) => warn!(%error, "the limit of open files stays as it is"),
    }
}

/// Returns how many files this process may open once its limit was raised; any number where that cannot be told.
#[must_use]
pub fn file_limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, most)| most)
}

struct Frame {
    logs: Logs,
    admin: SocketAddr,
    grace: Duration,
    threads: usize,
}

impl Frame {
    fn configure(settings: &mut Settings, admin: &str) -> Self {
        let level = settings.get(
            "log.level",
            "info".to_owned(),
            "error, warn, info, debug or trace for Tutti's own code, or a filter as tracing's EnvFilter",
        );
        let json = settings.choice("log.format", "text", &[("text", false), ("json", true)], "text or json");
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
            "seconds that stopping may take, after SIGTERM",
        );
        let threads = settings.number(
            "runtime.threads",
            0usize,
            0..=1024,
            "threads that its own work runs on, drivers and HTTP workers aside; 0: one a core",
        );
        Self { logs, admin, grace: Duration::from_secs(grace), threads }
    }

    fn runtime(&self) -> std::io::Result<tokio::runtime::Runtime> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        if self.threads > 0 {
            builder.worker_threads(self.threads);
        }
        builder.enable_all().build()
    }

    async fn run<S: Service>(self, config: S::Config) -> u8 {
        let listener = match TcpListener::bind(self.admin).await {
            Ok(listener) => listener,
            Err(error) => {
                error!("admin.listen: cannot listen on {}: {error}", self.admin);
                return EXIT_FAILURE;
            }
        };
        let mut registry = Registry::with_prefix("tutti");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What runs here", version);
        let metrics = S::metrics(&mut registry);
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
                match tokio::time::timeout(self.grace, &mut service).await {
                    Ok(ended) => ended,
                    Err(_) => Err(Failure::Other("not stopped within the grace period".into())),
                }
            }
        };
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
}

/// Completes at SIGTERM or SIGINT, with its name.
///
/// # Panics
/// If the process may not listen to them.
pub async fn stop_signal() -> &'static str {
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be listened to");
    let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be listened to");
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

#[derive(clap::Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 stopped as asked, 64 a mistake in the configuration, \
    70 it could not go on."
)]
struct Arguments {
    /// Settings from a TOML file; TUTTI_... variables win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print every setting, its value, origin and meaning, and exit
    #[arg(long)]
    check_config: bool,
}

impl Arguments {
    fn parse<S: Service>() -> Result<Self, clap::Error> {
        let matches = Self::command().name(S::NAME).about(S::ABOUT).try_get_matches()?;
        Self::from_arg_matches(&matches)
    }
}
