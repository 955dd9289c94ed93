//! Fixes that tests send, and the map that they must result in.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tutti_load::now_ms;
use tutti_load::publisher::Publisher;
use tutti_load::watch::Viewer;

/// The content of a map: the timestamp of each mediaId.
pub type Map = BTreeMap<String, i64>;

/// Reads a map from the body of `GET /v1/map/locations`.
pub(crate) fn map_of(body: &Value) -> Map {
    let fixes = body["locations"].as_array().cloned().unwrap_or_default();
    fixes
        .iter()
        .filter_map(|fix| Some((fix["mediaId"].as_str()?.to_owned(), fix["timestamp"].as_i64()?)))
        .collect()
}

/// Returns the map that a viewer holds.
pub fn map_of_viewer(viewer: &Viewer) -> Map {
    viewer.devices.iter().filter_map(|(id, fix)| Some((id.clone(), fix["timestamp"].as_i64()?))).collect()
}

/// Returns the JSON of a fix.
pub fn fix(id: &str, timestamp_ms: i64) -> String {
    format!(r#"{{"mediaId":"{id}","timestamp":{timestamp_ms},"latitude":37.7,"longitude":-122.4}}"#)
}

/// Returns the JSON of a fix with a long text in its properties.
pub fn padded_fix(id: &str, timestamp_ms: i64, padding: &str) -> String {
    format!(
        r#"{{"mediaId":"{id}","timestamp":{timestamp_ms},"latitude":1.5,"longitude":2.5,"properties":{{"p":"{padding}"}}}}"#
    )
}

/// Sends fixes with growing timestamps, and keeps the map that they must result in.
pub struct Input {
    /// The newest timestamp that was sent of each mediaId.
    pub expected: Map,
    /// The number of fixes that were sent.
    pub sent: u64,
    devices: u64,
}

impl Input {
    /// Makes an input of this many devices.
    pub fn new(devices: u64) -> Self {
        Self { expected: Map::new(), sent: 0, devices }
    }

    /// Sends fixes with the current time, keyed by mediaId, the devices in turn.
    ///
    /// # Panics
    /// If the Kafka driver refuses a record.
    pub async fn send(&mut self, publisher: &Publisher, count: u64) {
        self.send_each(publisher, count, fix).await;
    }

    /// Sends fixes with the current time, the devices in turn. `fix` makes the JSON of a mediaId and a timestamp.
    ///
    /// # Panics
    /// If the Kafka driver refuses a record.
    pub async fn send_each(&mut self, publisher: &Publisher, count: u64, fix: impl Fn(&str, i64) -> String) {
        for _ in 0..count {
            let id = format!("device-{}", self.sent % self.devices);
            let timestamp_ms = now_ms();
            publisher.send(&id, Some(fix(&id, timestamp_ms).as_bytes())).await.expect("the driver takes it");
            let newest = self.expected.entry(id).or_insert(timestamp_ms);
            *newest = (*newest).max(timestamp_ms);
            self.sent += 1;
        }
    }

    /// Sends `per_second` fixes a second for this time.
    ///
    /// # Panics
    /// If the Kafka driver refuses a record.
    pub async fn send_for(&mut self, publisher: &Publisher, duration: Duration, per_second: u64) {
        let until = tokio::time::Instant::now() + duration;
        let mut steps = tokio::time::interval(Duration::from_millis(20));
        while tokio::time::Instant::now() < until {
            steps.tick().await;
            self.send(publisher, (per_second / 50).max(1)).await;
        }
    }
}

/// The order in which the fixes of devices that move in turn were sent. It is the order of the map only if all are in
/// one partition, and no device moves twice in a millisecond.
#[derive(Clone)]
pub struct Course {
    devices: usize,
    places: Arc<Mutex<HashMap<(String, i64), usize>>>,
}

impl Course {
    /// Makes a course of this many devices.
    pub fn of(devices: u64) -> Self {
        Self { devices: devices as usize, places: Arc::default() }
    }

    /// Returns the JSON of the next fix, for [`Input::send_each`].
    ///
    /// # Panics
    /// If another thread panicked while it held the places.
    pub fn fix(&self, id: &str, timestamp_ms: i64) -> String {
        let mut places = self.places.lock().expect("no panic");
        let place = places.len();
        places.insert((id.to_owned(), timestamp_ms), place);
        fix(id, timestamp_ms)
    }

    /// Checks that the map once had exactly the fixes that a viewer holds: as many as there are devices, sent one
    /// after the other.
    ///
    /// # Errors
    /// If the map never had them.
    ///
    /// # Panics
    /// If another thread panicked while it held the places.
    pub fn check(&self, viewer: &Viewer) -> anyhow::Result<()> {
        if viewer.last_id == "0" {
            return Ok(()); // it is being shown its first map
        }
        let held = self.places_of(viewer)?;
        ensure!(held.len() == self.devices, "{} devices at {}", held.len(), viewer.last_id);
        let (first, last) = (held[0], held[held.len() - 1]);
        ensure!(last - first < self.devices, "fixes {first} to {last} at {}", viewer.last_id);
        Ok(())
    }

    /// Returns the place of the newest fix that a viewer holds.
    ///
    /// # Errors
    /// If the viewer holds no fix, or one that was not sent.
    ///
    /// # Panics
    /// If another thread panicked while it held the places.
    pub fn newest(&self, viewer: &Viewer) -> anyhow::Result<usize> {
        self.places_of(viewer)?.last().copied().context("the viewer holds no fix")
    }

    /// Returns the places of all fixes that a viewer holds, in order.
    fn places_of(&self, viewer: &Viewer) -> anyhow::Result<Vec<usize>> {
        let places = self.places.lock().expect("no panic");
        let held = map_of_viewer(viewer).into_iter();
        let mut held = held
            .map(|fix| places.get(&fix).copied().with_context(|| format!("{fix:?} was not sent")))
            .collect::<anyhow::Result<Vec<usize>>>()?;
        held.sort_unstable();
        Ok(held)
    }
}
