//! Notifications to a topic that all devices follow.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use tokio::time::sleep;

use super::rig::{Bench, notification};
use crate::bench::baseline;
use crate::bench::process::cpu_seconds;
use crate::bench::report::{median, row, say};
use crate::bench::stage::{Running, Stage};

/// Notifications in a round.
const TIMES: usize = 20;
/// The time between two notifications.
const PAUSE: Duration = Duration::from_millis(200);

impl Bench<'_> {
    /// Measures notifications to all devices at once. `plain` is the cost of a plain write, in microseconds.
    pub(super) async fn topic(&self, edge: &Running, plain: f64) -> anyhow::Result<()> {
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
}

/// Returns the microseconds of CPU of a plain write, to as many sockets as this process may hold both ends of.
pub(super) async fn plain_loop(stage: &Stage) -> anyhow::Result<f64> {
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
