//! Devices that all reconnect at once, after their edge has died.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::rig::{Bench, notification, write};
use crate::bench::process::{memory, rss};
use crate::bench::report::{row, say};
use crate::bench::stage::Running;

impl Bench<'_> {
    /// Ends an edge, and lets all its devices reconnect to another at once.
    pub(super) async fn storm(
        &self,
        edge: Running,
        mut devices: JoinSet<(usize, String)>,
    ) -> anyhow::Result<()> {
        let streams = self.stage.options.streams;
        say(&format!("{streams} devices that come back at once, with their last ids:"));
        drop(edge);
        let mut ids = vec![String::new(); streams];
        while let Some(left) = devices.join_next().await {
            let (n, id) = left?;
            ids[n] = id;
        }
        ensure!(ids.iter().all(|id| id.len() > 10), "a device has no id");
        // Each device has missed one notification.
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
        // The edge reports its devices to the registry once a second.
        sleep(Duration::from_secs(3)).await;
        let after = self.stage.commands().await?;
        let count = |counts: &BTreeMap<String, u64>, name: &str| counts.get(name).copied().unwrap_or(0);
        // All other commands are those in scripts.
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
