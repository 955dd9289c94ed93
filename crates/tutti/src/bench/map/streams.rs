//! Many streams of the map on one edge: those that receive each fix, and those that receive none.

use std::net::TcpStream;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::ensure;
use tokio::task::JoinSet;

use super::rig::{Bench, LASTS, SLOTS};
use super::viewers::{self, SAMPLES, event, open, read};
use crate::bench::baseline;
use crate::bench::process::rss;
use crate::bench::report::{median, row, say};
use crate::bench::stage::Running;

/// Streams that receive each fix.
const STREAMS: usize = 1000;
/// Fixes a second to these streams.
const RATES: [u32; 2] = [20, 100];
/// Bytes of an event on the wire. The properties of its fix are padded for that.
const EVENT_BYTES: usize = 232;
/// The number of times that all idle streams come and go before their memory is measured.
const CYCLES: u8 = 3;
/// Streams that come before memory is measured.
const FIRST: usize = 100;

/// What a round showed, of the services and of a plain loop.
pub(super) struct Round {
    /// Microseconds of CPU for an event: edge, ingest, Redis.
    parts: Vec<f64>,
    plain: f64,
    /// Fixes that each event had.
    fixes: f64,
    /// Milliseconds from Kafka to the samples: the median, and the 99th percentile.
    ours: [f64; 2],
    plains: [f64; 2],
}

impl Bench<'_> {
    /// Measures many streams that receive each fix, and prints their CPU.
    pub(super) async fn streams(&mut self) -> anyhow::Result<Vec<Round>> {
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

    /// Returns the milliseconds from the acknowledgement of a fix to the samples: the median, and the 99th
    /// percentile.
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

    /// Measures the memory of streams that receive nothing.
    pub(super) async fn idle(&mut self) -> anyhow::Result<()> {
        let count = self.stage.options.idle_streams;
        say(&format!("{count} idle streams on a fresh edge:"));
        let (_ingest, edge) = self.begin(250).await?;
        // What the first streams bring into memory, such as code, belongs to the process and not to a stream.
        let first = open(&edge, FIRST, 1, &self.times).await?;
        self.until_open(&edge, FIRST).await?;
        drop(first);
        self.until_open(&edge, 0).await?;
        let before = rss(edge.process.pid())?;
        for cycle in 0..CYCLES {
            // Each time the streams come from another address, because a port can be used again only after a while.
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
pub(super) fn print_latencies(rounds: &[Round]) {
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
