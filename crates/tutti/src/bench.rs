//! `tutti bench`: what the live map, the waiting room and notifications cost, each figure beside a limit of the same run.
//!
//! Everything runs on this machine: a private Redis, the services as processes of their own (those
//! beside this program), the embedded broker, and the load. So figures are lower than where the load
//! comes from elsewhere; ratios are what counts.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use fred::prelude::*;
use fred::types::{ClusterHash, CustomCommand};
use tutti_feed::connect;
use tutti_service::raise_file_limit;

use crate::broker::Broker;
use crate::local::{Owned, Redis, find, wait_for_port};
use crate::metrics::Families;
use crate::passes::new_key;

mod baseline;
mod inboxes;
mod map;
mod waiting_room;

const SECRET: &str = "a-secret-of-the-benchmark-and-of-nothing-else";

/// What to measure.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Measure only one part
    #[arg(value_enum)]
    only: Option<Part>,
    /// People who wait
    #[arg(long, default_value_t = 1_000_000)]
    waiting: u64,
    /// Streams: of visitors who are told their place once a second; of users' devices
    #[arg(long, default_value_t = 10_000)]
    streams: usize,
    /// Notifications a second
    #[arg(long, default_value_t = 2000)]
    rate: u64,
    /// Rates of scripts and shares of a core are taken so often; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Streams of the map that hear nothing, to measure their memory: each takes a file descriptor here and
    /// one of the edge, and both ends count where a limit is the machine's. The goal is for 18,000
    #[arg(long, default_value_t = 9000)]
    idle_streams: usize,
    /// Devices on the map that an edge is started for; each reports once in 5 s. The goal is for 100,000,
    /// which a small machine cannot publish beside the rest
    #[arg(long, default_value_t = 20_000)]
    devices: u32,
    /// A file for how the map's costs grow with streams, devices and edges, as plots in Markdown (Mermaid); nothing
    /// else of the map is measured then
    #[arg(long)]
    plots: Option<PathBuf>,
    /// Kafka, host:port, for positions and notifications; the embedded broker if absent, which holds each
    /// back for up to 20 ms
    #[arg(long, env = "KAFKA")]
    kafka: Option<String>,
    /// Ports from this one up
    #[arg(long, default_value_t = 31_000)]
    port_base: u16,
}

/// A part of the benchmarks.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    WaitingRoom,
    Inboxes,
    Map,
}

/// Where it is measured.
struct Stage {
    options: Options,
    folder: tempfile::TempDir,
    redis: Redis,
    client: Client,
    broker: Broker,
    http: reqwest::Client,
}

/// A service as a process.
struct Running {
    /// Name of its program.
    name: String,
    process: Owned,
    url: String,
    /// URL of its admin port.
    admin: String,
}

/// When each thing was sent on its way and when it was heard, nanoseconds since the start.
struct Times {
    began: Instant,
    /// When Kafka acknowledged it.
    acknowledged: Vec<AtomicU64>,
    heard: Vec<AtomicU64>,
    /// What streams were told; what many were told, for each.
    told: AtomicUsize,
    /// Streams that have been told all that they lacked.
    live: AtomicUsize,
}

/// Runs all of it and prints a table.
///
/// # Errors
/// If something does not start, or answers what it must not.
pub async fn bench(options: Options) -> anyhow::Result<()> {
    raise_file_limit();
    ensure!(find("redis-benchmark").is_some(), "redis-benchmark is needed: apt-get install redis-tools");
    let redis = Redis::start(options.port_base)?;
    let topics = [("queueing-system", 1), ("media-locations", 1), (inboxes::TOPIC, 3), (map::TOPIC, 1)];
    let broker = Broker::start(options.port_base + 1, &topics).await?;
    let connection = connect(&redis.url())?;
    let stage = Stage {
        folder: tempfile::tempdir()?,
        http: reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?,
        client: connection.client.clone(),
        options,
        redis,
        broker,
    };
    std::fs::write(stage.folder.path().join("key.pem"), new_key())?;
    let runs = |part| stage.options.only.is_none_or(|only| only == part);
    if runs(Part::WaitingRoom) {
        waiting_room::run(&stage).await?;
    }
    if runs(Part::Inboxes) {
        inboxes::run(&stage).await?;
    }
    if runs(Part::Map) {
        map::run(&stage).await?;
    }
    Ok(())
}

impl Times {
    fn new(slots: usize) -> Arc<Self> {
        let zeros = || (0..slots).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self {
            began: Instant::now(),
            acknowledged: zeros(),
            heard: zeros(),
            told: AtomicUsize::new(0),
            live: AtomicUsize::new(0),
        })
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }
}

impl Stage {
    fn service(&self, name: &str, port: u16, settings: &[(&str, String)]) -> anyhow::Result<Running> {
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

    fn edge(&self, port: u16) -> anyhow::Result<Running> {
        self.edge_with(port, &[])
    }

    /// An edge with more settings.
    fn edge_with(&self, port: u16, more: &[(&str, String)]) -> anyhow::Result<Running> {
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

    /// An ingest of one route; what more there is comes before what is here.
    fn ingest(
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

    /// The Kafka of positions and notifications.
    fn kafka(&self) -> String {
        self.options.kafka.clone().unwrap_or_else(|| self.broker.address().to_owned())
    }

    /// Returns the value of a counter or gauge, summed over its label sets: see [`Families::value`].
    async fn metric(&self, of: &Running, name: &str) -> anyhow::Result<f64> {
        let text = self.http.get(format!("{}/metrics", of.admin)).send().await?.text().await?;
        Families::of(&of.name)?.value(&text, name)?.with_context(|| format!("{} has not set {name}", of.name))
    }

    /// Forgets all; the services that use it must have ended.
    async fn empty_redis(&self) -> anyhow::Result<()> {
        let flush = CustomCommand::new_static("FLUSHALL", ClusterHash::FirstKey, false);
        let _: String = self.client.custom(flush, Vec::<String>::new()).await?;
        Ok(())
    }

    /// The median of so many rounds.
    async fn median(&self, mut measure: impl AsyncFnMut() -> anyhow::Result<f64>) -> anyhow::Result<f64> {
        let mut all = Vec::new();
        for _ in 0..self.options.rounds {
            all.push(measure().await?);
        }
        Ok(median(all))
    }

    /// How often each command ran, also in scripts.
    async fn commands(&self) -> anyhow::Result<BTreeMap<String, u64>> {
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

/// A program beside this one.
fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let path = own.parent().unwrap_or(Path::new(".")).join(name);
    ensure!(path.is_file(), "{} is not there; `make bench` builds it", path.display());
    Ok(path)
}

fn rss(pid: u32) -> anyhow::Result<u64> {
    memory(pid, "VmRSS:")
}

/// A figure of a process's memory, in bytes.
fn memory(pid: u32, figure: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(figure)).context("Linux tells it")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kilobytes * 1024)
}

/// Of each of these processes.
fn cpus(pids: &[u32]) -> anyhow::Result<Vec<f64>> {
    pids.iter().map(|pid| cpu_seconds(*pid)).collect()
}

/// Of user and system, since the process began.
fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    cpu_of(&format!("/proc/{pid}/stat"))
}

fn cpu_of(path: &str) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(path)?;
    let after = stat.rsplit(") ").next().context("Linux tells it")?;
    let ticks: Vec<f64> = after.split(' ').skip(11).take(2).filter_map(|n| n.parse().ok()).collect();
    ensure!(ticks.len() == 2, "{stat}");
    // USER_HZ is 100 on every Linux that we know.
    Ok((ticks[0] + ticks[1]) / 100.0)
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn rates(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>, seconds: f64) -> String {
    let mut all: Vec<String> = Vec::new();
    for name in after.keys() {
        let of = |counts: &BTreeMap<String, u64>| counts.get(name).copied().unwrap_or(0);
        let rate = (of(after) - of(before)) as f64 / seconds;
        if rate >= 0.1 {
            all.push(format!("{name} {rate:.1}"));
        }
    }
    all.join(", ")
}

fn say(what: &str) {
    println!("\n{what}");
}

fn row(what: &str, figure: &str) {
    println!("  {what:<66} {figure}");
}
