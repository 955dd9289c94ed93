//! The command line of `tutti up`, and the ports that it takes.

use crate::local::check_port_free;
use crate::token::DEVELOPMENT_SECRET;

/// What to start, and what to use in its place.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Use the ports from this one up, in place of 8080, 8081, 9092 and others
    #[arg(long, value_name = "PORT")]
    pub port_base: Option<u16>,
    /// Use this Kafka (host:port,...) in place of the embedded broker
    #[arg(long, env = "KAFKA", value_name = "BROKERS")]
    pub kafka: Option<String>,
    /// Use this Redis (redis://host:port) in place of a private one
    #[arg(long, env = "REDIS", hide_env_values = true, value_name = "URL")]
    pub redis: Option<String>,
    /// Do not play the recorded taxis, nor tell users anything
    #[arg(long)]
    pub no_replay: bool,
    /// Ask for a token with the scope map:read (see tutti token)
    #[arg(long)]
    pub private: bool,
    /// The HS256 secret that tokens are checked with; known to all unless given
    #[arg(long, env = "TUTTI_AUTH_HS256_SECRET", hide_env_values = true, default_value = DEVELOPMENT_SECRET, hide_default_value = true)]
    pub secret: String,
    /// What is logged: error, warn, info, debug, trace, or a filter
    #[arg(long, default_value = "warn", value_name = "LEVEL")]
    pub log: String,
}

/// The ports that everything listens on, all of 127.0.0.1.
pub(super) struct Ports {
    pub(super) edges: [u16; 2],
    pub(super) kafka: u16,
    pub(super) redis: u16,
    pub(super) queue: u16,
    pub(super) notify: u16,
    /// The admin ports of ingest, the two edges, the queue and notify.
    pub(super) admin: [u16; 5],
}

impl Ports {
    /// Takes the ports from `base` up, or those that the documentation names.
    ///
    /// # Errors
    /// If there are not enough ports above the base.
    pub(super) fn new(base: Option<u16>) -> anyhow::Result<Self> {
        let Some(base) = base else {
            return Ok(Self {
                edges: [8080, 8081],
                kafka: 9092,
                redis: 16379,
                queue: 9200,
                notify: 9201,
                admin: [9101, 9102, 9103, 9104, 9105],
            });
        };
        anyhow::ensure!((1024..=65_000).contains(&base), "--port-base must be 1024 to 65000");
        let at = |n: u16| base + n;
        Ok(Self {
            edges: [at(0), at(1)],
            kafka: at(2),
            redis: at(3),
            queue: at(7),
            notify: at(9),
            admin: [at(4), at(5), at(6), at(8), at(10)],
        })
    }

    /// Checks that nothing uses the ports.
    ///
    /// # Errors
    /// If something does.
    pub(super) fn check(&self, embeds_kafka: bool) -> anyhow::Result<()> {
        for port in self.edges {
            check_port_free(port, "an edge")?;
        }
        check_port_free(self.queue, "the waiting room's service")?;
        check_port_free(self.notify, "the notifications' service")?;
        for port in self.admin {
            check_port_free(port, "an admin port")?;
        }
        if embeds_kafka {
            check_port_free(self.kafka, "the embedded broker")?;
        }
        Ok(())
    }
}
