//! A city of devices on the map.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tutti_load::city::{CENTRE, City};
use tutti_load::publisher::Publisher;

use super::rig::{Bench, LASTS, PATIENCE, TOPIC, applied};
use super::viewers::bytes_a_second;
use crate::bench::report::{median, row, say};
use crate::bench::stage::Running;

/// Seconds between two fixes of a device.
pub(super) const REPORTS: u32 = 5;

impl Bench<'_> {
    /// Starts a city on the map, half a degree around its centre. It is driven until the returned tasks are dropped.
    pub(super) async fn drive(
        &self,
        devices: u32,
        rate: u32,
    ) -> anyhow::Result<(Running, JoinSet<anyhow::Result<()>>)> {
        self.stage.empty_redis().await?;
        let ingest = self.ingest(TOPIC, "end")?;
        let city = City { devices, rate: f64::from(rate), fixes: None, seed: 1, radius: 0.5 };
        let publisher = Publisher::new(&self.stage.kafka(), TOPIC)?;
        let mut driving = JoinSet::new();
        driving.spawn(async move { city.run(&publisher).await });
        let until = Instant::now() + PATIENCE;
        while applied(self.stage, &ingest).await? == 0.0 {
            ensure!(Instant::now() < until, "no fix reaches Redis");
            sleep(Duration::from_millis(100)).await;
        }
        Ok((ingest, driving))
    }

    /// Measures how soon a fresh edge has the city, and what viewers receive.
    pub(super) async fn city(&self) -> anyhow::Result<()> {
        let devices = self.stage.options.devices;
        let rate = (devices / REPORTS).max(1);
        say(&format!("{devices} devices on the map, {rate} fixes a second:"));
        let (_ingest, _driving) = self.drive(devices, rate).await?;
        sleep(Duration::from_secs(15)).await;
        let mut took = Vec::new();
        for _ in 0..self.stage.options.rounds {
            took.push(self.fresh_edge(devices).await?.1);
        }
        let took = median(took);
        row("a fresh edge, from its start until it serves all of them", &format!("{took:.2} s (goal 2)"));
        let (edge, _) = self.fresh_edge(devices).await?;
        views(&edge).await
    }

    /// Starts an edge. Returns it and the seconds until it had all devices.
    pub(super) async fn fresh_edge(&self, devices: u32) -> anyhow::Result<(Running, f64)> {
        let (began, until) = (Instant::now(), Instant::now() + PATIENCE);
        let edge = self.edge(12, 250)?;
        self.until_ready(&edge).await?;
        let url = format!("{}/v1/map/locations", edge.url);
        loop {
            let map = self.stage.http.get(&url).send().await?.text().await?;
            let there = map.matches(r#""mediaId":"#).count();
            if there >= devices as usize {
                return Ok((edge, began.elapsed().as_secs_f64()));
            }
            ensure!(Instant::now() < until, "only {there} of {devices} devices are on the map");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Measures what viewers of a city receive.
async fn views(edge: &Running) -> anyhow::Result<()> {
    let (latitude, longitude) = CENTRE;
    let [west, east] = [-0.05, 0.05].map(|more| longitude + more);
    let [south, north] = [-0.05, 0.05].map(|more| latitude + more);
    let district = format!("/v1/map/stream?bbox={west:.4},{south:.4},{east:.4},{north:.4}");
    let (world, district, seconds) = ("/v1/map/stream", district.as_str(), Duration::from_secs(LASTS.into()));
    let views = [
        ("all of one degree by one", world, "identity"),
        ("the same, gzip", world, "gzip"),
        ("the same, zstd", world, "zstd"),
        ("a district of 0.1 degrees by 0.1", district, "identity"),
        ("the same, gzip", district, "gzip"),
    ];
    let reading = views.iter().map(|(_, path, coding)| bytes_a_second(edge, path, coding, seconds));
    let all = futures_util::future::try_join_all(reading).await?;
    for ((what, ..), bytes) in views.iter().zip(all) {
        row(&format!("a viewer of {what}"), &format!("{:.1} KB a second", bytes / 1e3));
    }
    Ok(())
}
