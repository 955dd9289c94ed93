//! Notifications and inboxes.
//!
//! [`filing`] measures how fast mailboxes take notifications. [`rig::Bench`] opens a stream for each user's device
//! ([`device`]) and sends. [`latency`] measures notifications to single users, [`topic`] those to all, and [`storm`] what
//! happens when all devices reconnect at once.

mod device;
mod filing;
mod latency;
mod rig;
mod storm;
mod topic;

use super::stage::Stage;
use rig::Bench;
pub(super) use rig::TOPIC;

/// Measures notifications and prints the figures.
///
/// # Errors
/// If something does not start, or answers what it must not.
pub(super) async fn run(stage: &Stage) -> anyhow::Result<()> {
    filing::appends(stage).await?;
    let ingest = stage.ingest(8, ("notifications", TOPIC, "end"), &[])?;
    let plain = topic::plain_loop(stage).await?;
    let edge = stage.edge(10)?;
    let bench = Bench::start(stage)?;
    let devices = bench.open_all(&edge, vec![String::new(); stage.options.streams]).await?;
    bench.until_carried().await?;
    bench.latency(&edge, &ingest).await?;
    bench.topic(&edge, plain).await?;
    bench.storm(edge, devices).await
}
