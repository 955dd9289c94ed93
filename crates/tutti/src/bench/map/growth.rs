//! How the costs of the map grow, as plots.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::sleep;

use super::city::REPORTS;
use super::rig::{Bench, LASTS, applied};
use super::viewers::open;
use crate::bench::process::{cpu_seconds, rss};
use crate::bench::report::{median, row, say};

/// Fixes a second to streams, and of a city while edges are added.
const TO_STREAMS: u32 = 20;
const TO_EDGES: u32 = 1000;
/// The colour that Mermaid takes by itself is nearly white.
const COLOUR: &str = r##"%%{init: {"themeVariables": {"xyChart": {"plotColorPalette": "#2a6fb0"}}}}%%"##;

/// Measures how costs grow, prints it, and writes the plots to a file.
///
/// # Errors
/// If something does not start, or answers what it must not.
pub(super) async fn run(bench: &mut Bench<'_>, file: &Path) -> anyhow::Result<()> {
    say("how it grows:");
    let mut text = streams(bench).await?.markdown();
    for plot in devices(bench).await? {
        text.push_str(&plot.markdown());
    }
    text.push_str(&edges(bench).await?.markdown());
    std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

/// A figure that depends on a number of things, such as streams.
struct Plot {
    title: &'static str,
    of: &'static str,
    unit: &'static str,
    values: Vec<(usize, f64)>,
}

impl Plot {
    fn new(title: &'static str, of: &'static str, unit: &'static str) -> Self {
        Self { title, of, unit, values: Vec::new() }
    }

    fn add(&mut self, count: usize, value: f64) {
        row(&format!("{}, {count} {}", self.title, self.of), &format!("{value:.2} {}", self.unit));
        self.values.push((count, value));
    }

    /// Returns the plot in Markdown, for Mermaid.
    fn markdown(&self) -> String {
        let most = self.values.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        let counts: Vec<String> = self.values.iter().map(|(count, _)| format!("\"{count}\"")).collect();
        let values: Vec<String> = self.values.iter().map(|(_, value)| format!("{value:.2}")).collect();
        let (counts, values) = (counts.join(", "), values.join(", "));
        format!(
            "```mermaid\n{COLOUR}\nxychart-beta\n    title \"{}\"\n    x-axis \"{}\" [{counts}]\n    \
             y-axis \"{}\" 0 --> {:.2}\n    bar [{values}]\n```\n",
            self.title,
            self.of,
            self.unit,
            most * 1.2
        )
    }
}

/// Measures the CPU of more and more streams.
async fn streams(bench: &mut Bench<'_>) -> anyhow::Result<Plot> {
    let mut counts = vec![1000, 4000, 9000, bench.stage.options.idle_streams];
    counts.sort_unstable();
    counts.dedup();
    let mut plot = Plot::new("CPU of edge, ingest and Redis a delivered event", "streams", "us");
    for count in counts {
        let (ingest, edge) = bench.begin(0).await?;
        let _streams = open(&edge, count, 1, &bench.times).await?;
        bench.until_open(&edge, count).await?;
        let pids = [edge.process.pid(), ingest.process.pid(), bench.stage.redis.pid()];
        let (parts, _) = bench.steady(&pids, TO_STREAMS).await?;
        plot.add(count, parts.iter().sum());
    }
    Ok(plot)
}

/// Measures how soon an edge serves more and more devices, and its memory.
async fn devices(bench: &Bench<'_>) -> anyhow::Result<[Plot; 2]> {
    let mut soon = Plot::new("From the start of an edge until it serves all", "devices", "s");
    let mut memory = Plot::new("Memory of an edge", "devices", "MB");
    for count in [1000, 10_000, 30_000, 100_000] {
        let (_ingest, _driving) = bench.drive(count, count / REPORTS).await?;
        sleep(Duration::from_secs(10)).await;
        let (mut took, mut held) = (Vec::new(), Vec::new());
        for _ in 0..bench.stage.options.rounds {
            let (edge, seconds) = bench.fresh_edge(count).await?;
            took.push(seconds);
            held.push(rss(edge.process.pid())? as f64 / 1e6);
        }
        soon.add(count as usize, median(took));
        memory.add(count as usize, median(held));
    }
    Ok([soon, memory])
}

/// Measures the CPU of Redis with more and more edges.
async fn edges(bench: &Bench<'_>) -> anyhow::Result<Plot> {
    let (ingest, _driving) = bench.drive(TO_EDGES * REPORTS, TO_EDGES).await?;
    let mut plot = Plot::new("CPU of Redis a fix, 1,000 of them a second", "edges", "us");
    let mut running = Vec::new();
    for count in 1..=4usize {
        let edge = bench.edge(10 + 2 * count as u16, 250)?;
        bench.until_ready(&edge).await?;
        running.push(edge);
        sleep(Duration::from_secs(2)).await;
        let redis = bench.stage.redis.pid();
        let (before, fixes) = (cpu_seconds(redis)?, applied(bench.stage, &ingest).await?);
        sleep(Duration::from_secs(LASTS.into())).await;
        let (after, fixes) = (cpu_seconds(redis)?, applied(bench.stage, &ingest).await? - fixes);
        plot.add(count, (after - before) * 1e6 / fixes);
    }
    Ok(plot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_is_text_that_mermaid_reads() {
        let plot = Plot { title: "Cost", of: "edges", unit: "us", values: vec![(1, 2.5), (2, 10.0)] };
        let expected = "\nxychart-beta\n    title \"Cost\"\n    x-axis \"edges\" [\"1\", \"2\"]\n    \
                        y-axis \"us\" 0 --> 12.00\n    bar [2.50, 10.00]\n```\n";
        assert_eq!(plot.markdown(), format!("```mermaid\n{COLOUR}{expected}"));
    }
}
