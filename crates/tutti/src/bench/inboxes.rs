//! Notifications and inboxes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use fred::prelude::*;
use rand::Rng as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tutti_feed::{Filing, MailboxLimits, MailboxMetrics, Mailboxes};
use tutti_kafka::{ClientSettings, Producer, ProducerOptions, ProducerRecord};
use tutti_model::names;

use super::{Running, SECRET, Stage, Times, baseline, cpu_seconds, cpus, median, memory, row, rss, say};
use crate::token::sign;

/// The topic of notifications.
pub(super) const TOPIC: &str = "bench-notifications";
/// Notifications that are looked for at the same time, at most.
const SLOTS: usize = 1 << 20;
/// Items filed in one batch, as ingest does.
const BATCH: usize = 512;
/// Sockets that the bare pair writes to: of more, this process could not hold both ends beside the devices.
const SOCKETS: usize = 4500;
/// Notifications to a topic, a round, and the time between two.
const TIMES: usize = 20;
const PAUSE: Duration = Duration::from_millis(200);
const DAY: Duration = Duration::from_secs(86_400);

/// Measures it.
///
/// # Errors
/// If something does not start, or answers what it must not.
pub(super) async fn run(stage: &Stage) -> anyhow::Result<()> {
    appends(stage).await?;
    let ingest = stage.ingest(8, ("notifications", TOPIC, "end"), &[])?;
    let plain = plain_loop(stage).await?;
    let edge = stage.edge(10)?;
    let bench = Bench { stage, producer: producer(&stage.kafka())?, times: Times::new(SLOTS) };
    let devices = bench.connect(&edge).await?;
    bench.until_carried().await?;
    bench.latency(&edge, &ingest).await?;
    bench.topic(&edge, plain).await?;
    bench.storm(edge, devices).await
}

fn producer(kafka: &str) -> anyhow::Result<Producer> {
    let settings = ClientSettings { brokers: kafka.to_owned(), ..ClientSettings::default() };
    let options = ProducerOptions {
        client_id: "tutti-bench",
        delivery_timeout: Some(Duration::from_secs(10)),
        linger: Duration::from_millis(1),
    };
    Ok(Producer::start(&settings, &options)?)
}

/// Writes a notification, and waits until Kafka has it.
async fn write(producer: &Producer, key: &str, value: &str) -> Result<(), tutti_kafka::Error> {
    let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
    producer.send(&ProducerRecord { topic: TOPIC, key, value, ..ProducerRecord::default() }).await
}

struct Bench<'a> {
    stage: &'a Stage,
    producer: Producer,
    times: Arc<Times>,
}

/// One device's stream, read by hand: a full client would cost more than the edge.
struct Device {
    socket: TcpStream,
    last_id: String,
}

impl Device {
    async fn open(url: &str, token: &str, last_id: &str) -> anyhow::Result<Self> {
        let address = url.strip_prefix("http://").context("an http:// URL")?;
        let mut socket = loop {
            match TcpStream::connect(address).await {
                Ok(socket) => break socket,
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        };
        socket.set_nodelay(true)?;
        let last = if last_id.is_empty() { String::new() } else { format!("last-event-id: {last_id}\r\n") };
        let request = format!(
            "GET /v1/inbox/stream?topics=bench HTTP/1.0\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n{last}\r\n"
        );
        socket.write_all(request.as_bytes()).await?;
        Ok(Self { socket, last_id: String::new() })
    }

    /// Reads until the stream ends; its last id.
    async fn read(mut self, times: &Times) -> String {
        let (mut held, mut buffer, mut greeted) = (String::new(), [0; 4096], false);
        while let Ok(n @ 1..) = self.socket.read(&mut buffer).await {
            held.push_str(&String::from_utf8_lossy(&buffer[..n]));
            let Some(end) = held.rfind("\n\n") else { continue };
            for line in held[..end].lines() {
                if let Some(id) = line.strip_prefix("id: ") {
                    id.clone_into(&mut self.last_id);
                    if !std::mem::replace(&mut greeted, true) {
                        times.live.fetch_add(1, Ordering::Relaxed);
                    }
                } else if let Some(at) = line.find(r#""id":"n-"#) {
                    let number = line[at + 8..].split('"').next().and_then(|n| n.parse::<usize>().ok());
                    if let Some(slot) = number.and_then(|n| times.heard.get(n)) {
                        slot.store(times.now(), Ordering::Relaxed);
                    }
                    times.told.fetch_add(1, Ordering::Relaxed);
                }
            }
            held.drain(..end);
        }
        self.last_id
    }
}

fn notification(number: usize, to: &serde_json::Value) -> String {
    json!({
        "id": format!("n-{number}"),
        "to": to,
        "category": "order",
        "title": "Your order is on its way",
        "body": "It left our warehouse a minute ago, and will be with you by noon.",
        "data": { "order": 4711, "carrier": "bike" },
    })
    .to_string()
}

impl Bench<'_> {
    /// One device for each user.
    async fn connect(&self, edge: &Running) -> anyhow::Result<JoinSet<(usize, String)>> {
        let count = self.stage.options.streams;
        let devices = self.open_all(edge, vec![String::new(); count]).await?;
        Ok(devices)
    }

    /// All devices at once, from their last ids; returns when all are live.
    async fn open_all(&self, edge: &Running, ids: Vec<String>) -> anyhow::Result<JoinSet<(usize, String)>> {
        let mut devices = JoinSet::new();
        let wanted = self.times.live.load(Ordering::Relaxed) + ids.len();
        // The kernel's queue of connections is shorter than a fleet.
        let turns = Arc::new(Semaphore::new(2000));
        for (n, last_id) in ids.into_iter().enumerate() {
            let token = sign(SECRET, &format!("u-{n}"), "inbox:topics", DAY)?;
            let (url, times, turns) = (edge.url.clone(), self.times.clone(), turns.clone());
            devices.spawn(async move {
                let turn = turns.acquire_owned().await;
                let device = Device::open(&url, &token, &last_id).await;
                drop(turn);
                match device {
                    Ok(device) => (n, device.read(&times).await),
                    Err(_) => (n, String::new()),
                }
            });
        }
        let until = Instant::now() + Duration::from_secs(120);
        while self.times.live.load(Ordering::Relaxed) < wanted {
            ensure!(Instant::now() < until, "only {} are live", self.times.live.load(Ordering::Relaxed));
            sleep(Duration::from_millis(10)).await;
        }
        Ok(devices)
    }

    async fn send(&self, number: usize, key: &str, to: &serde_json::Value) -> anyhow::Result<()> {
        let value = notification(number, to);
        write(&self.producer, key, &value).await.context("Kafka does not take a notification")?;
        self.times.acknowledged[number].store(self.times.now(), Ordering::Relaxed);
        Ok(())
    }

    /// Waits until ingest has its partitions: what is sent before it does comes late.
    async fn until_carried(&self) -> anyhow::Result<()> {
        let before = self.times.told.load(Ordering::Relaxed);
        let until = Instant::now() + Duration::from_secs(60);
        let mut number = SLOTS - 1;
        while self.times.told.load(Ordering::Relaxed) < before + 30 {
            ensure!(Instant::now() < until, "no notification arrives");
            for key in 0..10 {
                let to = json!({ "users": [format!("u-{key}")] });
                self.send(number, &format!("u-{key}"), &to).await?;
                number -= 1;
            }
            sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Single users, at a steady rate.
    async fn latency(&self, edge: &Running, ingest: &Running) -> anyhow::Result<()> {
        let (rate, streams) = (self.stage.options.rate, self.stage.options.streams);
        say(&format!("{rate} notifications a second, each to one of {streams} streams of one edge:"));
        let lasts = Duration::from_secs(10);
        let pids = [edge.process.pid(), ingest.process.pid(), self.stage.redis.pid()];
        let (mut p50, mut p99, mut ours, mut bare, mut parts) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut sockets = baseline::sockets(SOCKETS)?;
        for round in 0..self.stage.options.rounds {
            let first = round * 200_000;
            let before = cpus(&pids)?;
            let mut ticks = interval(Duration::from_millis(5));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let (began, mut sent) = (Instant::now(), 0);
            let (mut sending, told) = (JoinSet::new(), self.times.told.load(Ordering::Relaxed));
            while began.elapsed() < lasts {
                ticks.tick().await;
                let due = (began.elapsed().as_secs_f64() * rate as f64) as usize;
                for n in sent..due.min(200_000) {
                    let user = format!("u-{}", rand::rng().random_range(0..streams));
                    let (producer, times) = (self.producer.clone(), self.times.clone());
                    sending.spawn(async move {
                        let value = notification(first + n, &json!({ "users": [user] }));
                        let acknowledged = write(&producer, &user, &value).await.is_ok();
                        times.acknowledged[first + n].store(times.now(), Ordering::Relaxed);
                        acknowledged
                    });
                }
                sent = sent.max(due.min(200_000));
            }
            while let Some(acknowledged) = sending.join_next().await {
                ensure!(acknowledged?, "Kafka does not take a notification");
            }
            let until = Instant::now() + Duration::from_secs(30);
            while self.times.told.load(Ordering::Relaxed) < told + sent {
                let missing = told + sent - self.times.told.load(Ordering::Relaxed);
                ensure!(Instant::now() < until, "{missing} of {sent} did not arrive");
                sleep(Duration::from_millis(5)).await;
            }
            let after = cpus(&pids)?;
            let each: Vec<f64> = (0..3).map(|i| (after[i] - before[i]) * 1e6 / sent as f64).collect();
            let mut took: Vec<f64> = (first..first + sent)
                .map(|n| {
                    let (a, b) = (&self.times.acknowledged[n], &self.times.heard[n]);
                    b.load(Ordering::Relaxed).saturating_sub(a.load(Ordering::Relaxed)) as f64 / 1e6
                })
                .collect();
            took.sort_by(f64::total_cmp);
            p50.push(took[sent / 2]);
            p99.push(took[sent * 99 / 100]);
            ours.push(each.iter().sum());
            parts.push(each);

            let port = self.stage.options.port_base;
            let redis = cpu_seconds(self.stage.redis.pid())?;
            let bytes =
                b"16c\r\nid: u.AdTXbTUQ_57hwaCbmAM~t.bench.AdTXbTUQ_57hwaCbmAM\nevent: notification\ndata: "
                    .to_vec();
            let bytes = [
                bytes,
                notification(1_000_000, &json!({ "users": ["u-1234"] })).into_bytes(),
                b"\n\n\r\n".to_vec(),
            ]
            .concat();
            let pair =
                tokio::task::spawn_blocking(move || baseline::pair(port, sockets, &bytes, rate, lasts));
            let (back, threads, count) = pair.await??;
            sockets = back;
            let redis = cpu_seconds(self.stage.redis.pid())? - redis;
            bare.push((threads + redis) * 1e6 / count as f64);
        }
        row("Kafka's acknowledgement to the device, p50", &format!("{:.1} ms", median(p50)));
        row("the same, p99", &format!("{:.1} ms", median(p99)));
        let part = |i: usize| median(parts.iter().map(|part| part[i]).collect());
        row(
            "CPU a notification: edge, ingest, Redis",
            &format!("{:.0}, {:.0}, {:.0} us", part(0), part(1), part(2)),
        );
        let (ours, bare) = (median(ours), median(bare));
        row("CPU a notification, all three", &format!("{ours:.0} us"));
        row("a bare PUBLISH and SUBSCRIBE that writes to the socket, and Redis", &format!("{bare:.0} us"));
        row("all three beside the bare pair", &format!("{:.2} (goal at most 3)", ours / bare));
        Ok(())
    }

    /// All at once.
    async fn topic(&self, edge: &Running, plain: f64) -> anyhow::Result<()> {
        let streams = self.stage.options.streams;
        say(&format!("a topic that {streams} streams of one edge follow:"));
        let mut ours = Vec::new();
        for round in 0..self.stage.options.rounds {
            let (before, told) = (cpu_seconds(edge.process.pid())?, self.times.told.load(Ordering::Relaxed));
            for n in 0..TIMES {
                self.send(800_000 + round * TIMES + n, "bench", &json!({ "topic": "bench" })).await?;
                sleep(PAUSE).await;
            }
            let until = Instant::now() + Duration::from_secs(60);
            while self.times.told.load(Ordering::Relaxed) < told + TIMES * streams {
                let told = self.times.told.load(Ordering::Relaxed) - told;
                ensure!(Instant::now() < until, "only {told} of {} arrived", TIMES * streams);
                sleep(Duration::from_millis(5)).await;
            }
            ours.push((cpu_seconds(edge.process.pid())? - before) * 1e6 / (TIMES * streams) as f64);
        }
        let ours = median(ours);
        row("CPU a delivery", &format!("{ours:.2} us"));
        row("a plain loop of writes of as many bytes", &format!("{plain:.2} us"));
        row("the delivery beside the plain loop", &format!("{:.2} (goal at most 1.2)", ours / plain));
        Ok(())
    }

    /// An edge dies, and all its devices come to another at once.
    async fn storm(&self, edge: Running, mut devices: JoinSet<(usize, String)>) -> anyhow::Result<()> {
        let streams = self.stage.options.streams;
        say(&format!("{streams} devices that come back at once, with their last ids:"));
        drop(edge);
        let mut ids = vec![String::new(); streams];
        while let Some(left) = devices.join_next().await {
            let (n, id) = left?;
            ids[n] = id;
        }
        ensure!(ids.iter().all(|id| id.len() > 10), "a device has no id");
        // Each has missed one.
        for n in 0..streams.min(10_000) {
            let user = format!("u-{n}");
            let value = notification(900_000 + n, &json!({ "users": [user] }));
            write(&self.producer, &user, &value).await?;
        }
        sleep(Duration::from_secs(2)).await;
        let edge = self.stage.edge(12)?;
        sleep(Duration::from_secs(2)).await;
        let (told, base) = (self.times.told.load(Ordering::Relaxed), rss(edge.process.pid())?);
        let commands = self.stage.commands().await?;
        let began = Instant::now();
        let devices = self.open_all(&edge, ids).await?;
        let live = began.elapsed();
        let until = Instant::now() + Duration::from_secs(60);
        while self.times.told.load(Ordering::Relaxed) < told + streams.min(10_000) {
            let told = self.times.told.load(Ordering::Relaxed) - told;
            ensure!(Instant::now() < until, "only {told} of what was missed arrived");
            sleep(Duration::from_millis(5)).await;
        }
        // The registry is told once a second.
        sleep(Duration::from_secs(3)).await;
        let after = self.stage.commands().await?;
        let count = |counts: &BTreeMap<String, u64>, name: &str| counts.get(name).copied().unwrap_or(0);
        // The others are the scripts' own.
        let sent = ["evalsha", "hdel", "set"];
        let sent: u64 = sent.iter().map(|name| count(&after, name) - count(&commands, name)).sum();
        row("until each has what it missed", &format!("{:.2} s", live.as_secs_f64()));
        row("commands of Redis a device", &format!("{:.2} (goal at most 3)", sent as f64 / streams as f64));
        let peak = memory(edge.process.pid(), "VmHWM:")?;
        row(
            "memory of the edge at its peak, above what it had",
            &format!(
                "{:.1} MB, {:.1} KB a device",
                (peak - base) as f64 / 1e6,
                (peak - base) as f64 / 1e3 / streams as f64
            ),
        );
        sleep(Duration::from_secs(5)).await;
        let held = rss(edge.process.pid())?.saturating_sub(base);
        row(
            "the same, five seconds later",
            &format!("{:.1} KB a device", held as f64 / 1e3 / streams as f64),
        );
        drop(devices);
        Ok(())
    }
}

/// What a write costs, in microseconds, to as many sockets as this process may hold both ends of.
async fn plain_loop(stage: &Stage) -> anyhow::Result<f64> {
    let mut sockets = baseline::sockets(stage.options.streams.min(9000))?;
    let text = notification(1_000_000, &json!({ "topic": "bench" }));
    let bytes = [text.as_bytes(), &[b'x'; 110]].concat();
    let mut all = Vec::new();
    for _ in 0..stage.options.rounds {
        let bytes = bytes.clone();
        let writing = tokio::task::spawn_blocking(move || {
            baseline::write_loop(sockets, TIMES, PAUSE, |_| bytes.clone())
        });
        let (back, each) = writing.await??;
        sockets = back;
        all.push(each * 1e6);
    }
    Ok(median(all))
}

/// Filing, beside what a log and a publication alone would be.
async fn appends(stage: &Stage) -> anyhow::Result<()> {
    say(&format!("notifications filed a second, {BATCH} in a batch, in mailboxes of 10,000 users:"));
    let payload = bytes::Bytes::from(vec![b'x'; 250]);
    let bare = stage.median(async || bare_appends(stage, &payload).await).await?;
    row("bare XADD and PUBLISH of each, in a pipeline", &format!("{bare:.0}"));
    let keep = MailboxLimits { items: 200, bytes: 256 << 10, age: 30 * DAY };
    let metrics = MailboxMetrics::default();
    let mailboxes = Mailboxes::new(stage.client.clone(), names::INBOX, 1, keep, metrics.clone());
    let ours = stage.median(async || filings(&mailboxes, &payload).await).await?;
    ensure!(metrics.known.get() == 0 && metrics.filed.get() >= 50_000, "each was filed");
    row(
        "filed, with ids that are known for a day",
        &format!("{ours:.0}, {:.2} of it (goal 0.5)", ours / bare),
    );
    Ok(())
}

async fn bare_appends(stage: &Stage, payload: &bytes::Bytes) -> anyhow::Result<f64> {
    let began = Instant::now();
    let batches = 200;
    for _ in 0..batches {
        let pipeline = stage.client.pipeline();
        for _ in 0..BATCH {
            let fields = vec![("r", payload.clone())];
            let () = pipeline.xadd("bare", false, ("MAXLEN", "~", 100_000), "*", fields).await?;
            let () = pipeline.publish("bare", payload.clone()).await?;
        }
        let _: Vec<fred::types::Value> = pipeline.all().await?;
    }
    Ok((batches * BATCH) as f64 / began.elapsed().as_secs_f64())
}

async fn filings(mailboxes: &Mailboxes, payload: &bytes::Bytes) -> anyhow::Result<f64> {
    let began = Instant::now();
    let batches = 100;
    for _ in 0..batches {
        let mut buckets: BTreeMap<u32, Vec<Filing>> = BTreeMap::new();
        for _ in 0..BATCH {
            let address = format!("user:b-{}", rand::rng().random_range(0..10_000));
            let bucket = mailboxes.bucket_of(address.as_bytes());
            let id = format!("{:032x}", rand::random::<u128>());
            let filing = Filing { address, id, expires_us: u64::MAX, payload: payload.clone() };
            buckets.entry(bucket).or_default().push(filing);
        }
        let filed = buckets.iter().map(|(bucket, filings)| mailboxes.file(*bucket, filings));
        futures_util::future::try_join_all(filed).await?;
    }
    Ok((batches * BATCH) as f64 / began.elapsed().as_secs_f64())
}
