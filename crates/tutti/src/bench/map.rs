//! The live map.

use std::net::TcpStream;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};
use tutti_kafka::tools::{Admin, CallbackProducer};
use tutti_kafka::{ProducerOptions, ProducerRecord};
use tutti_load::now_ms;
use tutti_model::{Fix, location};

use super::{Running, Stage, Times, baseline, cpu_seconds, cpus, median, row, rss, say};
use viewers::{SAMPLES, event, open, read};

mod backlog;
mod city;
mod growth;
mod viewers;

/// The topic of positions.
pub(super) const TOPIC: &str = "bench-locations";
/// Streams that are told each fix, and how many fixes a second.
const STREAMS: usize = 1000;
const RATES: [u32; 2] = [20, 100];
/// A round of these lasts so many seconds.
const LASTS: u32 = 10;
/// Bytes of an event on the wire: what its fix's properties are padded for.
const EVENT_BYTES: usize = 232;
/// What becomes of so many fixes can be noted, of each at all samples.
const SLOTS: usize = 1 << 20;
/// Times that all idle streams come and go before their memory is measured.
const CYCLES: u8 = 3;
/// Streams that come before memory is looked at.
const FIRST: usize = 100;
/// Nothing that takes longer comes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures it.
///
/// # Errors
/// If something does not start, or answers what it must not.
pub(super) async fn run(stage: &Stage) -> anyhow::Result<()> {
    if stage.options.kafka.is_some() {
        Admin::connect(&stage.kafka())?.create_topic(TOPIC, 1, &[]).await?;
    }
    let times = Times::new(SLOTS);
    let mut bench = Bench { stage, producer: producer(stage, &times)?, times, next: 0, pad: 0 };
    if let Some(file) = &stage.options.plots {
        return growth::run(&mut bench, file).await;
    }
    let rounds = bench.streams().await?;
    bench.idle().await?;
    latencies(&rounds);
    bench.backlog().await?;
    bench.city().await
}

struct Bench<'a> {
    stage: &'a Stage,
    producer: CallbackProducer,
    times: Arc<Times>,
    /// The number of the next fix.
    next: usize,
    /// Bytes that each fix is longer by than it must be.
    pad: usize,
}

/// What a round showed, of the services and of a plain loop.
struct Round {
    /// Microseconds of CPU an event: edge, ingest, Redis.
    parts: Vec<f64>,
    plain: f64,
    /// Fixes that each event had.
    fixes: f64,
    /// Milliseconds to the samples, p50 and p99.
    ours: [f64; 2],
    plains: [f64; 2],
}

impl Bench<'_> {
    /// Redis emptied, and a new ingest and edge, which carry already.
    async fn begin(&mut self, tick_ms: u32) -> anyhow::Result<(Running, Running)> {
        self.stage.empty_redis().await?;
        let ingest = self.ingest(TOPIC, "end")?;
        let edge = self.edge(10, tick_ms)?;
        self.until_ready(&edge).await?;
        let until = Instant::now() + PATIENCE;
        while applied(self.stage, &ingest).await? == 0.0 {
            ensure!(Instant::now() < until, "no fix reaches Redis");
            self.send()?;
            sleep(Duration::from_millis(200)).await;
        }
        sleep(Duration::from_secs(1)).await;
        Ok((ingest, edge))
    }

    fn ingest(&self, topic: &str, start: &str) -> anyhow::Result<Running> {
        let mut settings = vec![lasting()];
        if self.stage.options.kafka.is_none() {
            // The embedded broker answers only then, and what came meanwhile would be one event.
            settings.push(("TUTTI_KAFKA_PROPERTIES_FETCH_WAIT_MAX_MS", "5".to_owned()));
        }
        self.stage.ingest(8, ("locations", topic, start), &settings)
    }

    fn edge(&self, port: u16, tick_ms: u32) -> anyhow::Result<Running> {
        self.stage.edge_with(port, &[lasting(), ("TUTTI_MAP_TICK_MS", tick_ms.to_string())])
    }

    async fn until_ready(&self, service: &Running) -> anyhow::Result<()> {
        let (url, until) = (format!("{}/ready", service.admin), Instant::now() + PATIENCE);
        loop {
            let answer = self.stage.http.get(&url).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            ensure!(Instant::now() < until, "{url} says that it is not");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the edge has so many streams, and all are where the map is.
    async fn until_open(&self, edge: &Running, count: usize) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let open = self.stage.metric(edge, "tutti_edge_streams").await? as usize;
            let behind = self.stage.metric(edge, "tutti_edge_streams_behind").await? as usize;
            if (open, behind) == (count, 0) {
                return Ok(());
            }
            ensure!(Instant::now() < until, "{open} streams are open and {behind} behind, not {count} and 0");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Sends the next fix.
    fn send(&mut self) -> anyhow::Result<()> {
        ensure!(self.next < SLOTS, "so many rounds that no more fixes can be told apart");
        let fix = fix(self.next, self.pad);
        let value = location::to_json(&fix);
        let (key, value) = (Some(fix.media_id.as_bytes()), Some(value.as_bytes()));
        let record = ProducerRecord { topic: TOPIC, key, value, ..ProducerRecord::default() };
        let number = self.next;
        self.next += 1;
        self.producer.send(number, &record).context("Kafka does not take a fix")
    }

    fn told(&self) -> usize {
        self.times.told.load(Ordering::Relaxed)
    }

    /// Waits until no stream is told any more.
    async fn until_quiet(&self) {
        let mut before = None;
        while before != Some(self.told()) {
            before = Some(self.told());
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Sends for a round; microseconds of CPU of each process for an event that a stream was told, and how many
    /// those were.
    async fn steady(&mut self, pids: &[u32], rate: u32) -> anyhow::Result<(Vec<f64>, usize)> {
        let (told, before) = (self.told(), cpus(pids)?);
        let mut ticks = interval(Duration::from_secs(1) / rate);
        for _ in 0..rate * LASTS {
            ticks.tick().await;
            self.send()?;
        }
        self.until_quiet().await;
        let (told, after) = (self.told() - told, cpus(pids)?);
        ensure!(told > 0, "no stream was told anything");
        Ok((before.iter().zip(&after).map(|(was, is)| (is - was) * 1e6 / told as f64).collect(), told))
    }

    /// Bytes and frames that the edge has written.
    async fn written(&self, edge: &Running) -> anyhow::Result<(f64, f64)> {
        let bytes = self.stage.metric(edge, "tutti_edge_delivered_bytes_total").await?;
        Ok((bytes, self.stage.metric(edge, "tutti_edge_deliveries_total").await?))
    }

    /// Many streams that are told each fix at once; prints its CPU.
    async fn streams(&mut self) -> anyhow::Result<Vec<Round>> {
        let (ingest, edge) = self.begin(0).await?;
        let _streams = open(&edge, STREAMS, 1, &self.times).await?;
        self.until_open(&edge, STREAMS).await?;
        let before = self.written(&edge).await?;
        self.send()?;
        self.until_quiet().await;
        let after = self.written(&edge).await?;
        ensure!(after.1 > before.1, "no stream was told anything");
        let length = ((after.0 - before.0) / (after.1 - before.1)).round() as usize;
        ensure!(length <= EVENT_BYTES, "the least event has {length} bytes");
        self.pad = EVENT_BYTES - length;

        say(&format!("{STREAMS} streams of the map on one edge, each fix an event of {EVENT_BYTES} bytes:"));
        let (mut sockets, theirs) = baseline::pairs(STREAMS)?;
        let mut readers = JoinSet::new();
        for (n, socket) in theirs.into_iter().enumerate() {
            readers.spawn(read(socket, self.times.clone(), viewers::sample(n, STREAMS)));
        }
        let pids = [edge.process.pid(), ingest.process.pid(), self.stage.redis.pid()];
        let mut last = Vec::new();
        for rate in RATES {
            last = Vec::new();
            for _ in 0..self.stage.options.rounds {
                let (round, back) = self.round(&edge, &pids, rate, sockets).await?;
                sockets = back;
                last.push(round);
            }
            let of = |figure: &dyn Fn(&Round) -> f64| median(last.iter().map(figure).collect());
            let [edge, ingest, redis] = [0, 1, 2].map(|part| of(&|round| round.parts[part]));
            let (ours, plain) = (of(&|round| round.parts.iter().sum()), of(&|round| round.plain));
            let parts = format!("{edge:.2}, {ingest:.2}, {redis:.2} us");
            row(&format!("CPU a delivered event, {rate} a second: edge, ingest, Redis"), &parts);
            row("fixes that an event had", &format!("{:.2}", of(&|round| round.fixes)));
            row("a plain loop of writes of as many bytes", &format!("{plain:.2} us"));
            row("all three beside the plain loop", &format!("{:.2} (goal at most 1.1)", ours / plain));
        }
        Ok(last)
    }

    async fn round(
        &mut self,
        edge: &Running,
        pids: &[u32],
        rate: u32,
        sockets: Vec<TcpStream>,
    ) -> anyhow::Result<(Round, Vec<TcpStream>)> {
        let (first, before) = (self.next, self.written(edge).await?);
        let (parts, told) = self.steady(pids, rate).await?;
        let after = self.written(edge).await?;
        let length = ((after.0 - before.0) / (after.1 - before.1)).round() as usize;
        let fixes = ((self.next - first) * STREAMS) as f64 / told as f64;
        let ours = self.took(first..self.next)?;

        let (first, count) = (self.next, (rate * LASTS) as usize);
        self.next += count;
        ensure!(self.next < SLOTS, "so many rounds that no more fixes can be told apart");
        let times = self.times.clone();
        let bytes = move |time: usize| {
            times.acknowledged[first + time].store(times.now(), Ordering::Relaxed);
            event(first + time, length)
        };
        let pause = Duration::from_secs(1) / rate;
        let writing = tokio::task::spawn_blocking(move || baseline::write_loop(sockets, count, pause, bytes));
        let (sockets, plain) = writing.await??;
        self.until_quiet().await;
        let plains = self.took(first..self.next)?;
        Ok((Round { parts, plain: plain * 1e6, fixes, ours, plains }, sockets))
    }

    /// Milliseconds from a fix's acknowledgement to the samples: p50 and p99.
    fn took(&self, numbers: Range<usize>) -> anyhow::Result<[f64; 2]> {
        let mut all = Vec::new();
        for number in numbers {
            let from = self.times.acknowledged[number].load(Ordering::Relaxed);
            for heard in self.times.heard.iter().skip(number * SAMPLES).take(SAMPLES) {
                let to = heard.load(Ordering::Relaxed);
                if from > 0 && to > 0 {
                    all.push(to.saturating_sub(from) as f64 / 1e6);
                }
            }
        }
        ensure!(!all.is_empty(), "no sample was told anything, or there are too many rounds to note it");
        all.sort_by(f64::total_cmp);
        Ok([all[all.len() / 2], all[all.len() * 99 / 100]])
    }

    /// Streams that hear nothing.
    async fn idle(&mut self) -> anyhow::Result<()> {
        let count = self.stage.options.idle_streams;
        say(&format!("{count} idle streams on a fresh edge:"));
        let (_ingest, edge) = self.begin(250).await?;
        // What the first ones bring into memory, as code, is the process's and no stream's.
        let first = open(&edge, FIRST, 1, &self.times).await?;
        self.until_open(&edge, FIRST).await?;
        drop(first);
        self.until_open(&edge, 0).await?;
        let before = rss(edge.process.pid())?;
        for cycle in 0..CYCLES {
            // Of another address each time: ports may be used again only after a while.
            let streams = open(&edge, count, 2 + cycle, &self.times).await?;
            self.until_open(&edge, count).await?;
            drop(streams);
            self.until_open(&edge, 0).await?;
        }
        let _streams = open(&edge, count, 2 + CYCLES, &self.times).await?;
        self.until_open(&edge, count).await?;
        let each = rss(edge.process.pid())?.saturating_sub(before) as f64 / count as f64;
        row(
            &format!("memory of each, after {CYCLES} times that all came and went"),
            &format!("{:.2} KB (goal 2)", each / 1e3),
        );
        Ok(())
    }
}

/// Prints how long fixes took at the highest rate.
fn latencies(rounds: &[Round]) {
    let rate = RATES[RATES.len() - 1];
    say(&format!("{STREAMS} streams, {rate} events a second to each, {SAMPLES} of them timed:"));
    for (at, what) in [(0, "p50"), (1, "p99")] {
        let ours = median(rounds.iter().map(|round| round.ours[at]).collect());
        let plain = median(rounds.iter().map(|round| round.plains[at]).collect());
        row(&format!("Kafka's acknowledgement to the client, {what}"), &format!("{ours:.1} ms"));
        row(
            "a plain loop's beginning to the client",
            &format!("{plain:.1} ms; {:.2} of it (goal at most 1.5)", ours / plain),
        );
    }
}

/// No fix is too old while this runs. All services of a Redis must agree on it.
fn lasting() -> (&'static str, String) {
    ("TUTTI_LOCATIONS_STALE_AFTER_SECONDS", "600".to_owned())
}

/// Records that reached Redis.
async fn applied(stage: &Stage, ingest: &Running) -> anyhow::Result<f64> {
    stage.metric(ingest, "tutti_ingest_applied_records_total").await
}

/// A fix whose number stands in it; all are as long, but for so many bytes more.
fn fix(number: usize, pad: usize) -> Fix {
    Fix {
        media_id: format!("bench-{:03}", number % 100),
        timestamp_ms: now_ms(),
        latitude: 37.7749,
        longitude: -122.4194,
        heading: None,
        speed: None,
        properties: format!(r#"{{"n":"{number:08}","p":"{}"}}"#, "x".repeat(pad)),
    }
}

/// A producer that notes when Kafka acknowledged each fix, on a thread of the client: ours are busy reading streams.
fn producer(stage: &Stage, times: &Arc<Times>) -> anyhow::Result<CallbackProducer> {
    let times = times.clone();
    let acknowledged = move |number: usize, is_acknowledged| {
        if is_acknowledged {
            times.acknowledged[number].store(times.now(), Ordering::Relaxed);
        }
    };
    let options =
        ProducerOptions { client_id: "tutti-bench", delivery_timeout: None, linger: Duration::ZERO };
    Ok(CallbackProducer::connect(&stage.kafka(), &options, acknowledged)?)
}
