//! One test's Kafka topic, Redis, services and input.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tutti_load::now_ms;
use tutti_load::publisher::Publisher;
use tutti_load::watch::Viewer;

use crate::kafka::{self, Kafka};
use crate::redis::Redis;
use crate::service::Service;
use crate::{client, eventually, free_port, unique};

/// What a map holds: the timestamp of each mediaId.
pub type Map = BTreeMap<String, i64>;

/// Settings of an edge whose clients are many and have one address.
pub const UNLIMITED: [(&str, &str); 2] =
    [("streams.max_per_address", "0"), ("http.max_connections_per_address", "0")];

/// Where a test takes place.
pub struct Testbed {
    /// Of the test's own.
    pub redis: Redis,
    /// Of the test's own, on the shared Kafka.
    pub topic: String,
    /// Settings of all services.
    pub settings: BTreeMap<String, String>,
    brokers: String,
    folder: tempfile::TempDir,
}

/// An edge and where it listens.
pub struct Edge {
    /// The process.
    pub service: Service,
    /// `http://127.0.0.1:port`.
    pub url: String,
}

impl Testbed {
    /// A topic of so many partitions on the shared Kafka, and a Redis.
    ///
    /// # Panics
    /// If either does not start.
    pub async fn new(partitions: i32) -> Self {
        Self::on(kafka::shared(), partitions).await
    }

    /// The same on a Kafka of the test's own.
    ///
    /// # Panics
    /// If the topic cannot be made.
    pub async fn on(kafka: &Kafka, partitions: i32) -> Self {
        let topic = unique("locations");
        kafka.create_topic(&topic, partitions).await.expect("the topic is made");
        let redis = Redis::start().expect("Redis starts");
        let settings = BTreeMap::from([
            ("TUTTI_REDIS_URL".to_owned(), redis.url()),
            ("TUTTI_LOCATIONS_SHARDS".into(), "3".into()),
        ]);
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { redis, topic, settings, brokers: kafka.brokers(), folder }
    }

    /// The same, with a setting of all services, as `locations.stale_after_seconds`.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.settings.insert(variable(key), value.to_owned());
        self
    }

    /// Where a test may keep files.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Starts an ingest with settings of its own.
    pub fn ingest(&self, settings: &[(&str, &str)]) -> Service {
        let mut variables = self.settings.clone();
        variables.insert("TUTTI_KAFKA_BROKERS".into(), self.brokers.clone());
        variables.insert("TUTTI_INGEST_ROUTES".into(), "locations".into());
        variables.insert("TUTTI_ROUTES_LOCATIONS_TOPIC".into(), self.topic.clone());
        variables.insert("TUTTI_ROUTES_LOCATIONS_GROUP".into(), format!("{}-group", self.topic));
        variables.extend(settings.iter().map(|(key, value)| (variable(key), (*value).to_owned())));
        Service::start("tutti-ingest", self.folder.path(), variables)
    }

    /// Starts any service with settings of its own.
    pub fn service(&self, name: &'static str, settings: &[(&str, String)]) -> Service {
        let mut variables = self.settings.clone();
        variables.extend(settings.iter().map(|(key, value)| (variable(key), value.clone())));
        Service::start(name, self.folder.path(), variables)
    }

    /// Starts an edge with settings of its own.
    pub fn edge(&self, settings: &[(&str, &str)]) -> Edge {
        let port = free_port();
        let mut variables = self.settings.clone();
        variables.insert("TUTTI_HTTP_LISTEN".into(), format!("127.0.0.1:{port}"));
        variables.insert("TUTTI_HTTP_WORKERS".into(), "2".into());
        variables.insert("TUTTI_MAP_TICK_MS".into(), "50".into());
        variables.extend(settings.iter().map(|(key, value)| (variable(key), (*value).to_owned())));
        let service = Service::start("tutti-edge", self.folder.path(), variables);
        Edge { service, url: format!("http://127.0.0.1:{port}") }
    }

    /// Starts an ingest, and edges with settings of their own, and waits until all are ready.
    ///
    /// # Panics
    /// If one does not become ready.
    pub async fn up<const EDGES: usize>(
        &self,
        settings: [&[(&str, &str)]; EDGES],
    ) -> (Service, [Edge; EDGES]) {
        let ingest = self.ingest(&[]);
        let edges = settings.map(|settings| self.edge(settings));
        ingest.wait_ready().await;
        for edge in &edges {
            edge.service.wait_ready().await;
        }
        (ingest, edges)
    }

    /// Writes to the test's topic.
    ///
    /// # Panics
    /// If the driver refuses.
    pub fn publisher(&self) -> Publisher {
        Publisher::new(&self.brokers, &self.topic).expect("a producer")
    }

    /// Kafka's bootstrap address.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }
}

impl Edge {
    /// The stream of the map.
    pub fn stream(&self) -> String {
        format!("{}/v1/map/stream", self.url)
    }

    /// The map as the edge tells it; empty while it does not.
    pub async fn map(&self) -> Map {
        self.locations().await.map(|body| map_of(&body)).unwrap_or_default()
    }

    /// The body of `GET /v1/map/locations`.
    pub async fn locations(&self) -> Option<Value> {
        let response = client().get(format!("{}/v1/map/locations", self.url)).send().await.ok()?;
        response.error_for_status().ok()?.json().await.ok()
    }
}

fn map_of(body: &Value) -> Map {
    let fixes = body["locations"].as_array().cloned().unwrap_or_default();
    fixes
        .iter()
        .filter_map(|fix| Some((fix["mediaId"].as_str()?.to_owned(), fix["timestamp"].as_i64()?)))
        .collect()
}

/// What a viewer holds.
pub fn map_of_viewer(viewer: &Viewer) -> Map {
    viewer.devices.iter().filter_map(|(id, fix)| Some((id.clone(), fix["timestamp"].as_i64()?))).collect()
}

/// The JSON of a fix.
pub fn fix(id: &str, timestamp_ms: i64) -> String {
    format!(r#"{{"mediaId":"{id}","timestamp":{timestamp_ms},"latitude":37.7,"longitude":-122.4}}"#)
}

/// The same with something long in its properties.
pub fn padded_fix(id: &str, timestamp_ms: i64, padding: &str) -> String {
    format!(
        r#"{{"mediaId":"{id}","timestamp":{timestamp_ms},"latitude":1.5,"longitude":2.5,"properties":{{"p":"{padding}"}}}}"#
    )
}

/// Fixes with growing timestamps, and the plain fold of them.
pub struct Input {
    /// The newest timestamp of each mediaId sent.
    pub expected: Map,
    /// Fixes sent.
    pub sent: u64,
    devices: u64,
}

impl Input {
    /// Of so many devices.
    pub fn new(devices: u64) -> Self {
        Self { expected: Map::new(), sent: 0, devices }
    }

    /// Sends the next fixes of now, keyed by mediaId, the devices in turn.
    ///
    /// # Panics
    /// If the driver refuses one.
    pub async fn send(&mut self, publisher: &Publisher, count: u64) {
        self.send_each(publisher, count, fix).await;
    }

    /// The same, each with this JSON of a mediaId and a timestamp.
    ///
    /// # Panics
    /// If the driver refuses one.
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

    /// Sends so many fixes a second until the time is over.
    ///
    /// # Panics
    /// If the driver refuses one.
    pub async fn send_for(&mut self, publisher: &Publisher, duration: Duration, per_second: u64) {
        let until = tokio::time::Instant::now() + duration;
        let mut steps = tokio::time::interval(Duration::from_millis(20));
        while tokio::time::Instant::now() < until {
            steps.tick().await;
            self.send(publisher, (per_second / 50).max(1)).await;
        }
    }
}

/// Where each fix of devices that move in turn stands in the order in which all were sent. They must be in one
/// partition, and none may move twice in a millisecond.
#[derive(Clone)]
pub struct Course {
    devices: usize,
    places: Arc<Mutex<HashMap<(String, i64), usize>>>,
}

impl Course {
    /// Of so many devices.
    pub fn of(devices: u64) -> Self {
        Self { devices: devices as usize, places: Arc::default() }
    }

    /// The JSON of the next fix, for [`Input::send_each`].
    ///
    /// # Panics
    /// If another did while it held this.
    pub fn fix(&self, id: &str, timestamp_ms: i64) -> String {
        let mut places = self.places.lock().expect("no panic");
        let place = places.len();
        places.insert((id.to_owned(), timestamp_ms), place);
        fix(id, timestamp_ms)
    }

    /// Checks that the map was once what a viewer holds: as many fixes as there are devices, one after the other.
    ///
    /// # Errors
    /// If it never was.
    ///
    /// # Panics
    /// If another did while it held this.
    pub fn check(&self, viewer: &Viewer) -> anyhow::Result<()> {
        if viewer.last_id == "0" {
            return Ok(()); // it is being shown its first map
        }
        let held = map_of_viewer(viewer);
        ensure!(held.len() == self.devices, "{} devices at {}", held.len(), viewer.last_id);
        let places = self.places.lock().expect("no panic");
        let (mut first, mut last) = (usize::MAX, 0);
        for fix in held {
            let place = *places.get(&fix).with_context(|| format!("{fix:?} was not sent"))?;
            (first, last) = (first.min(place), last.max(place));
        }
        ensure!(last - first < self.devices, "fixes {first} to {last} at {}", viewer.last_id);
        Ok(())
    }
}

/// The environment variable of a setting, as `streams.max`.
pub fn variable(key: &str) -> String {
    format!("TUTTI_{}", key.replace(['.', '-'], "_").to_uppercase())
}

/// Sends to services that wait for replicas of Redis, also while these are cut off: that fails, and arrives when
/// they go on.
///
/// # Panics
/// If it does not.
pub async fn waits_for_replicas<R>(
    (ingest, edge): (&Service, &Edge),
    publisher: &Publisher,
    input: &mut Input,
    redis: &mut R,
    cut_off: impl FnOnce(&mut R),
    go_on: impl FnOnce(&mut R),
) {
    let more = async |input: &mut Input| {
        input.send_for(publisher, Duration::from_secs(1), 500).await;
        publisher.flush(Duration::from_secs(30)).await.expect("Kafka takes it");
    };
    more(input).await;
    eventually("the edge has the input", async || edge.map().await == input.expected).await;
    cut_off(redis);
    let errors = async || ingest.metric("tutti_ingest_append_errors_total").await;
    let before = errors().await;
    more(input).await;
    eventually("appends fail without the replica", async || errors().await > before).await;
    go_on(redis);
    eventually("with it all arrives", async || edge.map().await == input.expected).await;
}
