//! The place where everything is measured: Redis, the broker, and services as processes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use fred::prelude::*;
use fred::types::{ClusterHash, CustomCommand};

use super::options::Options;
use super::report::median;
use crate::broker::Broker;
use crate::local::{Owned, Redis, wait_for_port};
use crate::metrics::Families;

pub(super) const SECRET: &str = "a-secret-of-the-benchmark-and-of-nothing-else";

/// The place where everything is measured.
pub(super) struct Stage {
    pub(super) options: Options,
    pub(super) folder: tempfile::TempDir,
    pub(super) redis: Redis,
    pub(super) client: Client,
    pub(super) broker: Broker,
    pub(super) http: reqwest::Client,
}

/// A service that runs as a process.
pub(super) struct Running {
    /// The name of the program.
    pub(super) name: String,
    pub(super) process: Owned,
    pub(super) url: String,
    /// The URL of the admin port.
    pub(super) admin: String,
}

impl Stage {
    pub(super) fn service(
        &self,
        name: &str,
        port: u16,
        settings: &[(&str, String)],
    ) -> anyhow::Result<Running> {
        let port = self.options.port_base + port;
        let key = self.folder.path().join("key.pem").to_string_lossy().into_owned();
        let mut variables = BTreeMap::from([
            ("TUTTI_REDIS_URL".to_owned(), self.redis.url()),
            ("TUTTI_LOG_LEVEL".to_owned(), "warn".to_owned()),
            ("TUTTI_ADMIN_LISTEN".to_owned(), format!("127.0.0.1:{}", port + 1)),
        ]);
        if name == "tutti-queue" {
            variables.insert("TUTTI_GRPC_LISTEN".to_owned(), format!("127.0.0.1:{port}"));
            variables.insert("TUTTI_PASSES_KEY_FILE".to_owned(), key);
            variables.insert("TUTTI_KAFKA_BROKERS".to_owned(), self.broker.address().to_owned());
            variables.insert("TUTTI_ROOMS_MAX_UNRELAYED".to_owned(), "10000000".to_owned());
        }
        variables.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let admin = format!("http://{}", variables["TUTTI_ADMIN_LISTEN"]);
        let log = self.folder.path().join(format!("{name}-{port}.log"));
        let process = Owned::start_with(&[beside(name)?], "TERM", &log, variables)?;
        wait_for_port(port, Duration::from_secs(20))
            .with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
        Ok(Running {
            name: name.to_owned(),
            process,
            url: format!("http://{}:{port}", Ipv4Addr::LOCALHOST),
            admin,
        })
    }

    pub(super) fn edge(&self, port: u16) -> anyhow::Result<Running> {
        self.edge_with(port, &[])
    }

    /// Starts an edge with more settings.
    pub(super) fn edge_with(&self, port: u16, more: &[(&str, String)]) -> anyhow::Result<Running> {
        let mut settings = vec![
            ("TUTTI_HTTP_LISTEN", format!("127.0.0.1:{}", self.options.port_base + port)),
            ("TUTTI_HTTP_WORKERS", "1".to_owned()),
            ("TUTTI_RUNTIME_THREADS", "1".to_owned()),
            // All clients have one address.
            ("TUTTI_HTTP_MAX_CONNECTIONS_PER_ADDRESS", "0".to_owned()),
            ("TUTTI_STREAMS_MAX_PER_ADDRESS", "0".to_owned()),
            ("TUTTI_QUEUE_URLS", format!("http://127.0.0.1:{}", self.options.port_base + 2)),
            ("TUTTI_AUTH_HS256_SECRET", SECRET.to_owned()),
        ];
        settings.extend_from_slice(more);
        self.service("tutti-edge", port, &settings)
    }

    /// Starts an ingest of one route. The settings in `more` come before those here.
    pub(super) fn ingest(
        &self,
        port: u16,
        (route, topic, start): (&str, &str, &str),
        more: &[(&str, String)],
    ) -> anyhow::Result<Running> {
        let key = |part: &str| format!("TUTTI_ROUTES_{}_{part}", route.to_uppercase());
        let keys = [key("TOPIC"), key("GROUP"), key("START")];
        let mut settings = vec![
            ("TUTTI_ADMIN_LISTEN", format!("127.0.0.1:{}", self.options.port_base + port)),
            ("TUTTI_KAFKA_BROKERS", self.kafka()),
            ("TUTTI_INGEST_ROUTES", route.to_owned()),
            ("TUTTI_RUNTIME_THREADS", "1".to_owned()),
            (keys[0].as_str(), topic.to_owned()),
            (keys[1].as_str(), format!("bench-{}", rand::random::<u32>())),
            (keys[2].as_str(), start.to_owned()),
        ];
        if self.options.kafka.is_none() {
            // The embedded broker answers a fetch only when its time is over.
            settings.push(("TUTTI_KAFKA_PROPERTIES_FETCH_WAIT_MAX_MS", "20".to_owned()));
        }
        settings.extend_from_slice(more);
        self.service("tutti-ingest", port, &settings)
    }

    /// Returns the Kafka of positions and notifications.
    pub(super) fn kafka(&self) -> String {
        self.options.kafka.clone().unwrap_or_else(|| self.broker.address().to_owned())
    }

    /// Returns the value of a counter or gauge, summed over its label sets: see [`Families::value`].
    pub(super) async fn metric(&self, of: &Running, name: &str) -> anyhow::Result<f64> {
        let text = self.http.get(format!("{}/metrics", of.admin)).send().await?.text().await?;
        Families::of(&of.name)?.value(&text, name)?.with_context(|| format!("{} has not set {name}", of.name))
    }

    /// Deletes everything in Redis. The services that use it must have ended.
    pub(super) async fn empty_redis(&self) -> anyhow::Result<()> {
        let flush = CustomCommand::new_static("FLUSHALL", ClusterHash::FirstKey, false);
        let _: String = self.client.custom(flush, Vec::<String>::new()).await?;
        Ok(())
    }

    /// Measures as many rounds as the options say. Returns the median.
    pub(super) async fn median(
        &self,
        mut measure: impl AsyncFnMut() -> anyhow::Result<f64>,
    ) -> anyhow::Result<f64> {
        let mut all = Vec::new();
        for _ in 0..self.options.rounds {
            all.push(measure().await?);
        }
        Ok(median(all))
    }

    /// Returns how often each Redis command ran. Commands in scripts count, too.
    pub(super) async fn commands(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let info: String = self
            .client
            .custom(CustomCommand::new_static("INFO", ClusterHash::FirstKey, false), vec!["commandstats"])
            .await?;
        let calls = info.lines().filter_map(|line| {
            let (name, figures) = line.strip_prefix("cmdstat_")?.split_once(':')?;
            Some((name.to_owned(), figures.split(',').next()?.strip_prefix("calls=")?.parse().ok()?))
        });
        Ok(calls.collect())
    }
}

/// Returns the path of a program beside this one.
fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let path = own.parent().unwrap_or(Path::new(".")).join(name);
    ensure!(path.is_file(), "{} is not there; `make bench` builds it", path.display());
    Ok(path)
}
