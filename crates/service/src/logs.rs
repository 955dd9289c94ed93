//! Logs by `tracing`, as text or JSON.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

/// Our own crates.
const OURS: [&str; 7] =
    ["tutti", "tutti_model", "tutti_feed", "tutti_service", "tutti_ingest", "tutti_edge", "tutti_load"];

/// These log request heads and commands, with the tokens in them, below this level: whatever is
/// asked for, they do not get there.
const TALKATIVE: [&str; 7] =
    ["actix_http", "actix_web", "actix_server", "hyper", "h2", "fred", "redis_protocol"];

/// This logs as an error what any stranger may send, once for each time. The edge counts it instead.
const OF_STRANGERS: &str = "actix_http::h1";

/// What is logged, and how.
#[derive(Clone, Debug)]
pub struct Logs {
    /// `error` to `trace` for Tutti's own crates (others: `warn`), or a whole filter such as
    /// `info,tutti_feed=debug`.
    pub level: String,
    /// JSON lines in place of text.
    pub json: bool,
}

impl Logs {
    /// The filter: a bare level is meant for our own crates.
    fn filter(&self) -> Result<EnvFilter, String> {
        let text = if self.level.contains([',', '=']) {
            self.level.clone()
        } else {
            let each: Vec<String> = OURS.iter().map(|name| format!("{name}={}", self.level)).collect();
            format!("warn,{}", each.join(","))
        };
        EnvFilter::builder().parse(&text).map_err(|e| e.to_string())
    }

    /// Checks the filter without starting.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        self.filter().map(drop)
    }

    /// Starts logging to standard error. A second call in one process changes nothing.
    ///
    /// # Errors
    /// What is wrong with the filter.
    pub fn start(&self) -> Result<(), String> {
        let capped = TALKATIVE.iter().map(|name| (*name, LevelFilter::INFO));
        let cap = Targets::new()
            .with_default(LevelFilter::TRACE)
            .with_targets(capped)
            .with_target(OF_STRANGERS, LevelFilter::OFF);
        let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let layer = if self.json { layer.json().boxed() } else { layer.boxed() };
        // Not as filters of the layer: those note in the thread what the last check said, and where a driver checks
        // without logging, the next line of the thread may be lost by it.
        let _ = tracing_subscriber::registry().with(self.filter()?).with(cap).with(layer).try_init();
        Ok(())
    }
}
