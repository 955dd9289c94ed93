//! Logs, as text or JSON on standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

/// What the names of all of Tutti's crates begin with. A filter applies to every target that begins with its name, so
/// it applies to crates that are yet to be written as well.
const OURS: &str = "tutti";

/// Crates that log request heads and commands, with the tokens in them, below the level `info`. Their lines of those
/// levels are never written, whatever the setting says.
const TALKATIVE: [&str; 7] =
    ["actix_http", "actix_web", "actix_server", "hyper", "h2", "fred", "redis_protocol"];

/// A module that logs an error for each malformed request that any stranger may send. The edge counts these instead.
const MALFORMED_REQUESTS: &str = "actix_http::h1";

/// What is logged, and in which format.
#[derive(Clone, Debug)]
pub struct Logs {
    /// `error` to `trace` for Tutti's own crates, where others log at `warn`; or a whole filter such as
    /// `info,tutti_feed=debug`.
    pub level: String,
    /// JSON lines in place of text.
    pub json: bool,
}

impl Logs {
    /// Checks the filter.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        self.filter().map(drop)
    }

    /// Starts to log. A second call in one process changes nothing.
    ///
    /// # Errors
    /// What is wrong with the filter.
    pub fn start(&self) -> Result<(), String> {
        let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let layer = if self.json { layer.json().boxed() } else { layer.boxed() };
        // The filters are layers of their own, not filters of this layer. A filter of a layer notes in the thread
        // what its last check said; where a library checks without logging, the next line of the thread may be lost
        // by that.
        let _ = tracing_subscriber::registry().with(self.filter()?).with(cap()).with(layer).try_init();
        Ok(())
    }

    fn filter(&self) -> Result<EnvFilter, String> {
        let text = if self.level.contains([',', '=']) {
            self.level.clone()
        } else {
            format!("warn,{OURS}={}", self.level)
        };
        EnvFilter::builder().parse(&text).map_err(|e| e.to_string())
    }
}

/// Returns what is never logged, whatever the setting says.
fn cap() -> Targets {
    Targets::new()
        .with_default(LevelFilter::TRACE)
        .with_targets(TALKATIVE.map(|name| (name, LevelFilter::INFO)))
        .with_target(MALFORMED_REQUESTS, LevelFilter::OFF)
}

#[cfg(test)]
mod tests {
    use tracing::subscriber::with_default;
    use tracing::{Level, enabled};

    use super::*;

    #[test]
    fn a_bare_level_holds_for_every_crate_of_tutti_and_for_no_other() {
        let logs = Logs { level: "debug".to_owned(), json: false };
        with_default(tracing_subscriber::registry().with(logs.filter().unwrap()).with(cap()), || {
            assert!(enabled!(target: "tutti", Level::DEBUG));
            assert!(enabled!(target: "tutti_queue::relay", Level::DEBUG));
            assert!(enabled!(target: "tutti_of_tomorrow", Level::DEBUG));
            assert!(!enabled!(target: "tutti_queue::relay", Level::TRACE));
            assert!(!enabled!(target: "rdkafka", Level::INFO) && enabled!(target: "rdkafka", Level::WARN));
        });
    }

    #[test]
    fn no_setting_has_tokens_of_requests_logged() {
        let logs = Logs { level: "trace,hyper=trace".to_owned(), json: false };
        with_default(tracing_subscriber::registry().with(logs.filter().unwrap()).with(cap()), || {
            assert!(enabled!(target: "rdkafka", Level::TRACE));
            for is_logged in [
                enabled!(target: "hyper::proto", Level::DEBUG),
                enabled!(target: "fred::router", Level::TRACE),
                enabled!(target: "actix_http::h1::dispatcher", Level::ERROR),
            ] {
                assert!(!is_logged);
            }
        });
    }
}
