//! The `main` of a service: command line, configuration, logs, runtime.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};
use tracing::warn;

use crate::open_files::raise_file_limit;
use crate::process::{EXIT_CONFIG, EXIT_FAILURE, Process};
use crate::service::Service;
use crate::settings::Settings;

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

/// Runs a service as the `main` of its process. Returns once the service has stopped.
pub fn run<S: Service + 'static>() -> ExitCode {
    let arguments = match Arguments::parse::<S>() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_CONFIG) } else { ExitCode::SUCCESS };
        }
    };
    let mut settings = Settings::new(arguments.config.as_deref(), variables());
    let process = Process::configure(&mut settings, S::ADMIN);
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
    process.logs.start().expect("the filter was checked with the configuration");
    raise_file_limit();
    for name in settings.unknown_variables() {
        warn!(name, "this variable sets nothing; see --check-config");
    }
    let runtime = match process.runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{}: no runtime: {error}", S::NAME);
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    // The service runs as a task: a future in `block_on` itself is woken on a thread of its own, each time.
    let service = runtime.spawn(process.run::<S>(config));
    let code = runtime.block_on(service).unwrap_or(EXIT_FAILURE);
    // Blocking calls into drivers may hang for their own timeouts. The process does not wait for them.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// Returns the variables of the environment whose names and values are UTF-8. No other is one of Tutti's.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
