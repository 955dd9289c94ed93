//! Logs by `tracing`, as text or JSON.

use tracing_subscriber::EnvFilter;

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
    /// The filter: a bare level is meant for our own crates. The HTTP libraries log request heads,
    /// tokens included, below `debug`; whatever is asked for, they do not get there.
    fn filter(&self) -> Result<EnvFilter, String> {
        let ours = [
            "tutti",
            "tutti_model",
            "tutti_feed",
            "tutti_service",
            "tutti_ingest",
            "tutti_edge",
            "tutti_load",
        ];
        let text = if self.level.contains([',', '=']) {
            self.level.clone()
        } else {
            let each: Vec<String> = ours.iter().map(|name| format!("{name}={}", self.level)).collect();
            format!("warn,{}", each.join(","))
        };
        let mut filter = EnvFilter::builder().parse(&text).map_err(|e| e.to_string())?;
        for library in ["actix_http", "actix_web", "actix_server", "hyper", "h2", "fred", "redis_protocol"] {
            filter = filter.add_directive(format!("{library}=info").parse().expect("a literal directive"));
        }
        Ok(filter)
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
        let builder = tracing_subscriber::fmt().with_env_filter(self.filter()?).with_writer(std::io::stderr);
        let _ = if self.json { builder.json().try_init() } else { builder.try_init() };
        Ok(())
    }
}
