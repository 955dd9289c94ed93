//! How the map's costs grow: lines for plots.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::sleep;

use super::city::REPORTS;
use super::viewers::open;
use super::{Bench, LASTS, applied, cpus, rss, say};

/// Fixes a second to streams, and of a city while edges are added.
const TO_STREAMS: u32 = 20;
const TO_EDGES: u32 = 1000;

/// Measures it, prints it and writes it to a file.
///
/// # Errors
/// If something does not start, or answers what it must not.
pub(super) async fn run(bench: &mut Bench<'_>, file: &Path) -> anyhow::Result<()> {
    say("how it grows:");
    let mut lines = Lines(String::new());
    lines.push("what,count,figure,value");
    streams(bench, &mut lines).await?;
    devices(bench, &mut lines).await?;
    edges(bench, &mut lines).await?;
    std::fs::write(file, &lines.0).with_context(|| format!("writing {}", file.display()))
}

struct Lines(String);

impl Lines {
    fn push(&mut self, line: &str) {
        println!("{line}");
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn figure(&mut self, what: &str, count: impl std::fmt::Display, figure: &str, value: f64) {
        self.push(&format!("{what},{count},{figure},{value:.4}"));
    }
}

/// More streams: CPU a delivered event.
async fn streams(bench: &mut Bench<'_>, lines: &mut Lines) -> anyhow::Result<()> {
    let mut counts = vec![1000, 4000, bench.stage.options.idle_streams];
    counts.sort_unstable();
    counts.dedup();
    for count in counts {
        let (ingest, edge) = bench.begin(0).await?;
        let _streams = open(&edge, count, 1, &bench.times).await?;
        bench.until_open(&edge, count).await?;
        let pids = [edge.process.pid(), ingest.process.pid(), bench.stage.redis.pid()];
        let (parts, _) = bench.steady(&pids, TO_STREAMS).await?;
        lines.figure("streams", count, "cpu_us_per_event", parts.iter().sum());
        lines.figure("streams", count, "edge_cpu_us_per_event", parts[0]);
    }
    Ok(())
}

/// More devices: the time that a fresh edge takes, and its memory.
async fn devices(bench: &Bench<'_>, lines: &mut Lines) -> anyhow::Result<()> {
    for count in [1000, 10_000, 50_000] {
        let (_ingest, _driving) = bench.drive(count, count / REPORTS).await?;
        sleep(Duration::from_secs(10)).await;
        let (edge, took) = bench.fresh_edge(count).await?;
        lines.figure("devices", count, "fresh_edge_seconds", took);
        lines.figure("devices", count, "edge_memory_mb", rss(edge.process.pid())? as f64 / 1e6);
    }
    Ok(())
}

/// More edges: CPU of Redis and of ingest for a fix.
async fn edges(bench: &Bench<'_>, lines: &mut Lines) -> anyhow::Result<()> {
    let (ingest, _driving) = bench.drive(TO_EDGES * REPORTS, TO_EDGES).await?;
    let pids = [bench.stage.redis.pid(), ingest.process.pid()];
    let mut running = Vec::new();
    for count in [1u16, 2, 4] {
        while running.len() < usize::from(count) {
            let edge = bench.edge(12 + 2 * running.len() as u16, 250)?;
            bench.until_ready(&edge).await?;
            running.push(edge);
        }
        sleep(Duration::from_secs(2)).await;
        let (before, fixes) = (cpus(&pids)?, applied(bench.stage, &ingest).await?);
        sleep(Duration::from_secs(LASTS.into())).await;
        let (after, fixes) = (cpus(&pids)?, applied(bench.stage, &ingest).await? - fixes);
        for (at, figure) in ["redis_cpu_us_per_fix", "ingest_cpu_us_per_fix"].into_iter().enumerate() {
            lines.figure("edges", count, figure, (after[at] - before[at]) * 1e6 / fixes);
        }
    }
    Ok(())
}
