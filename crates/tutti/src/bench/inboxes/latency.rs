//! Notifications to single users, at a steady rate.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::ensure;
use rand::Rng as _;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::rig::{Bench, notification, write};
use crate::bench::baseline;
use crate::bench::process::{cpu_seconds, cpus};
use crate::bench::report::{median, row, say};
use crate::bench::stage::Running;

/// Notifications in a round, at most.
const MAX_SENT: usize = 200_000;
/// How long a round lasts.
const LASTS: Duration = Duration::from_secs(10);
/// Sockets that the bare pair writes to. This process could not hold both ends of more beside the devices.
const SOCKETS: usize = 4500;

/// What a round showed.
struct Round {
    /// Milliseconds from the acknowledgement of Kafka to the device: the median, and the 99th percentile.
    p50: f64,
    p99: f64,
    /// Microseconds of CPU for a notification: edge, ingest, Redis.
    parts: Vec<f64>,
    /// Microseconds of CPU for a message of the bare pair.
    bare: f64,
}

impl Bench<'_> {
    /// Measures and prints how long notifications take and what CPU they cost, beside a bare pair of a publisher and a
    /// subscriber.
    pub(super) async fn latency(&self, edge: &Running, ingest: &Running) -> anyhow::Result<()> {
        let (rate, streams) = (self.stage.options.rate, self.stage.options.streams);
        say(&format!("{rate} notifications a second, each to one of {streams} streams of one edge:"));
        let pids = [edge.process.pid(), ingest.process.pid(), self.stage.redis.pid()];
        let mut rounds = Vec::new();
        let mut sockets = baseline::sockets(SOCKETS)?;
        for round in 0..self.stage.options.rounds {
            let first = round * MAX_SENT;
            let before = cpus(&pids)?;
            let sent = self.send_steadily(first).await?;
            let after = cpus(&pids)?;
            let parts = before.iter().zip(&after).map(|(was, is)| (is - was) * 1e6 / sent as f64).collect();
            let mut took: Vec<f64> = (first..first + sent).map(|number| self.took_ms(number)).collect();
            took.sort_by(f64::total_cmp);
            let bare;
            (sockets, bare) = self.bare_pair(sockets).await?;
            rounds.push(Round { p50: took[sent / 2], p99: took[sent * 99 / 100], parts, bare });
        }
        let of = |figure: &dyn Fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
        row("Kafka's acknowledgement to the device, p50", &format!("{:.1} ms", of(&|round| round.p50)));
        row("the same, p99", &format!("{:.1} ms", of(&|round| round.p99)));
        let [edge, ingest, redis] = [0, 1, 2].map(|part| of(&|round| round.parts[part]));
        row("CPU a notification: edge, ingest, Redis", &format!("{edge:.0}, {ingest:.0}, {redis:.0} us"));
        let (ours, bare) = (of(&|round| round.parts.iter().sum()), of(&|round| round.bare));
        row("CPU a notification, all three", &format!("{ours:.0} us"));
        row("a bare PUBLISH and SUBSCRIBE that writes to the socket, and Redis", &format!("{bare:.0} us"));
        row("all three beside the bare pair", &format!("{:.2} (goal at most 3)", ours / bare));
        Ok(())
    }

    /// Sends notifications numbered from `first` to random users for a round, and waits until all have arrived. Returns
    /// their number.
    async fn send_steadily(&self, first: usize) -> anyhow::Result<usize> {
        let (rate, streams) = (self.stage.options.rate, self.stage.options.streams);
        let mut ticks = interval(Duration::from_millis(5));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let (began, mut sent) = (Instant::now(), 0);
        let (mut sending, told) = (JoinSet::new(), self.times.told.load(Ordering::Relaxed));
        while began.elapsed() < LASTS {
            ticks.tick().await;
            let due = ((began.elapsed().as_secs_f64() * rate as f64) as usize).min(MAX_SENT);
            for number in first + sent..first + due {
                let user = format!("u-{}", rand::rng().random_range(0..streams));
                let (producer, times) = (self.producer.clone(), self.times.clone());
                sending.spawn(async move {
                    let value = notification(number, &json!({ "users": [user] }));
                    let acknowledged = write(&producer, &user, &value).await.is_ok();
                    times.acknowledged[number].store(times.now(), Ordering::Relaxed);
                    acknowledged
                });
            }
            sent = sent.max(due);
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
        Ok(sent)
    }

    /// Returns the milliseconds from the acknowledgement of a notification to the device.
    fn took_ms(&self, number: usize) -> f64 {
        let (acknowledged, heard) = (&self.times.acknowledged[number], &self.times.heard[number]);
        heard.load(Ordering::Relaxed).saturating_sub(acknowledged.load(Ordering::Relaxed)) as f64 / 1e6
    }

    /// Runs the bare pair for a round. Returns the sockets, and the microseconds of CPU for a message, those of Redis
    /// among them.
    async fn bare_pair(
        &self,
        sockets: Vec<std::net::TcpStream>,
    ) -> anyhow::Result<(Vec<std::net::TcpStream>, f64)> {
        let (port, rate) = (self.stage.options.port_base, self.stage.options.rate);
        let redis = cpu_seconds(self.stage.redis.pid())?;
        let notification = notification(1_000_000, &json!({ "users": ["u-1234"] }));
        let head =
            "16c\r\nid: u.AdTXbTUQ_57hwaCbmAM~t.bench.AdTXbTUQ_57hwaCbmAM\nevent: notification\ndata: ";
        let bytes = format!("{head}{notification}\n\n\r\n").into_bytes();
        let pair = tokio::task::spawn_blocking(move || baseline::pair(port, sockets, &bytes, rate, LASTS));
        let (sockets, threads, count) = pair.await??;
        let redis = cpu_seconds(self.stage.redis.pid())? - redis;
        Ok((sockets, (threads + redis) * 1e6 / count as f64))
    }
}
