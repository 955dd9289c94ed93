//! An ingest and an edge of the map, and a producer of fixes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::time::{interval, sleep};
use tutti_kafka::tools::{Admin, CallbackProducer};
use tutti_kafka::{ProducerOptions, ProducerRecord};
use tutti_load::now_ms;
use tutti_model::{Fix, location};

use crate::bench::process::cpus;
use crate::bench::stage::{Running, Stage};
use crate::bench::times::Times;

/// The topic of positions.
pub(in crate::bench) const TOPIC: &str = "bench-locations";
/// The number of fixes that can be told apart, and noted.
pub(super) const SLOTS: usize = 1 << 20;
/// Seconds that a round lasts.
pub(super) const LASTS: u32 = 10;
/// The time after which nothing is waited for any more.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

pub(super) struct Bench<'a> {
    pub(super) stage: &'a Stage,
    pub(super) producer: CallbackProducer,
    pub(super) times: Arc<Times>,
    /// The number of the next fix.
    pub(super) next: usize,
    /// Bytes that are added to each fix.
    pub(super) pad: usize,
}

impl<'a> Bench<'a> {
    /// Connects the producer. On a Kafka that is not the embedded broker, makes the topic unless it is there.
    pub(super) async fn start(stage: &'a Stage) -> anyhow::Result<Self> {
        if stage.options.kafka.is_some() {
            Admin::connect(&stage.kafka())?.create_topic(TOPIC, 1, &[]).await?;
        }
        let times = Times::new(SLOTS);
        Ok(Self { stage, producer: producer(stage, &times)?, times, next: 0, pad: 0 })
    }

    /// Empties Redis, and starts an ingest and an edge. Returns them once they carry fixes.
    pub(super) async fn begin(&mut self, tick_ms: u32) -> anyhow::Result<(Running, Running)> {
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

    pub(super) fn ingest(&self, topic: &str, start: &str) -> anyhow::Result<Running> {
        let mut settings = vec![lasting()];
        if self.stage.options.kafka.is_none() {
            // The embedded broker answers a fetch only after this time, and everything that came meanwhile would be
            // one event.
            settings.push(("TUTTI_KAFKA_PROPERTIES_FETCH_WAIT_MAX_MS", "5".to_owned()));
        }
        self.stage.ingest(8, ("locations", topic, start), &settings)
    }

    pub(super) fn edge(&self, port: u16, tick_ms: u32) -> anyhow::Result<Running> {
        self.stage.edge_with(port, &[lasting(), ("TUTTI_MAP_TICK_MS", tick_ms.to_string())])
    }

    pub(super) async fn until_ready(&self, service: &Running) -> anyhow::Result<()> {
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

    /// Waits until the edge has this many streams, and all are where the map is.
    pub(super) async fn until_open(&self, edge: &Running, count: usize) -> anyhow::Result<()> {
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
    pub(super) fn send(&mut self) -> anyhow::Result<()> {
        ensure!(self.next < SLOTS, "so many rounds that no more fixes can be told apart");
        let fix = fix(self.next, self.pad);
        let value = location::to_json(&fix);
        let (key, value) = (Some(fix.media_id.as_bytes()), Some(value.as_bytes()));
        let record = ProducerRecord { topic: TOPIC, key, value, ..ProducerRecord::default() };
        let number = self.next;
        self.next += 1;
        self.producer.send(number, &record).context("Kafka does not take a fix")
    }

    pub(super) fn told(&self) -> usize {
        self.times.told.load(Ordering::Relaxed)
    }

    /// Waits until streams receive nothing more.
    pub(super) async fn until_quiet(&self) {
        let mut before = None;
        while before != Some(self.told()) {
            before = Some(self.told());
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Sends fixes for a round. Returns the microseconds of CPU of each process for an event that a stream received,
    /// and the number of these events.
    pub(super) async fn steady(&mut self, pids: &[u32], rate: u32) -> anyhow::Result<(Vec<f64>, usize)> {
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

    /// Returns the bytes and the frames that the edge has written.
    pub(super) async fn written(&self, edge: &Running) -> anyhow::Result<(f64, f64)> {
        let bytes = self.stage.metric(edge, "tutti_edge_delivered_bytes_total").await?;
        Ok((bytes, self.stage.metric(edge, "tutti_edge_deliveries_total").await?))
    }
}

/// Returns a setting by which no fix is too old. All services of a Redis must agree on it.
fn lasting() -> (&'static str, String) {
    ("TUTTI_LOCATIONS_STALE_AFTER_SECONDS", "600".to_owned())
}

/// Returns the number of records that reached Redis.
pub(super) async fn applied(stage: &Stage, ingest: &Running) -> anyhow::Result<f64> {
    stage.metric(ingest, "tutti_ingest_applied_records_total").await
}

/// Returns a fix that contains its number. All fixes have the same length, plus `pad` bytes.
pub(super) fn fix(number: usize, pad: usize) -> Fix {
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

/// Connects a producer that notes when Kafka acknowledged each fix. The notes are made on a thread of the Kafka
/// client, because the threads of this program are busy reading streams.
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
