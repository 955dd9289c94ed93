//! The live map.
//!
//! [`rig::Bench`] starts an ingest and an edge, and sends fixes. [`streams`] measures many streams that receive each fix,
//! and many that receive none. [`backlog`] measures how fast ingest works off what lies in Kafka. [`city`] measures a
//! map of many devices, and [`growth`] how costs grow. Streams are read by hand ([`viewers`]).

mod backlog;
mod city;
mod growth;
mod rig;
mod streams;
mod viewers;

use super::stage::Stage;
use rig::Bench;
pub(super) use rig::TOPIC;

/// Measures the map and prints the figures.
///
/// # Errors
/// If something does not start, or answers what it must not.
pub(super) async fn run(stage: &Stage) -> anyhow::Result<()> {
    let mut bench = Bench::start(stage).await?;
    if let Some(file) = &stage.options.plots {
        return growth::run(&mut bench, file).await;
    }
    let rounds = bench.streams().await?;
    bench.idle().await?;
    streams::print_latencies(&rounds);
    bench.backlog().await?;
    bench.city().await
}
