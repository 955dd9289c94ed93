//! One test's Kafka topic, Redis, services and input.

use std::collections::BTreeMap;

use serde_json::Value;
use tutti_load::publisher::Publisher;

use crate::fixes::{Map, map_of};
use crate::kafka::{self, Kafka};
use crate::redis::Redis;
use crate::service::{Service, variable};
use crate::{client, free_port, unique};

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
