//! `tutti bench`: what the live map, the waiting room and notifications cost, each figure beside a limit of the same run.
//!
//! Everything runs on this machine: a private Redis, the services as processes of their own (the programs beside this one),
//! the embedded broker, and the load. Figures are therefore lower than where the load comes from elsewhere. What counts are
//! ratios, such as the CPU of the services beside that of a plain loop that writes as many bytes ([`baseline`]).
//!
//! [`bench`] starts Redis and the broker on a [`stage`]. Each part starts its services there, measures, and prints rows with
//! [`report`].

mod baseline;
mod inboxes;
mod map;
mod options;
mod process;
mod report;
mod stage;
mod times;
mod waiting_room;

use std::time::Duration;

use anyhow::ensure;
use tutti_feed::connect;
use tutti_service::raise_file_limit;

use crate::broker::Broker;
use crate::local::{Redis, find};
use crate::passes::new_key;
use options::Part;
use stage::Stage;

pub use options::Options;

/// Measures all parts and prints their figures.
///
/// # Errors
/// If something does not start, or answers what it must not.
pub async fn bench(options: Options) -> anyhow::Result<()> {
    raise_file_limit();
    ensure!(find("redis-benchmark").is_some(), "redis-benchmark is needed: apt-get install redis-tools");
    let redis = Redis::start(options.port_base)?;
    let topics = [("queueing-system", 1), ("media-locations", 1), (inboxes::TOPIC, 3), (map::TOPIC, 1)];
    let broker = Broker::start(options.port_base + 1, &topics).await?;
    let connection = connect(&redis.url())?;
    let stage = Stage {
        folder: tempfile::tempdir()?,
        http: reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?,
        client: connection.client.clone(),
        options,
        redis,
        broker,
    };
    std::fs::write(stage.folder.path().join("key.pem"), new_key())?;
    let runs = |part| stage.options.only.is_none_or(|only| only == part);
    if runs(Part::WaitingRoom) {
        waiting_room::run(&stage).await?;
    }
    if runs(Part::Inboxes) {
        inboxes::run(&stage).await?;
    }
    if runs(Part::Map) {
        map::run(&stage).await?;
    }
    Ok(())
}
