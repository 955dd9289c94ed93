//! The Kafka topic, the Redis and the services of one test.

use std::collections::BTreeMap;

use serde_json::Value;
use tutti_load::publisher::Publisher;

use crate::fixes::{Map, map_of};
use crate::kafka::{self, Kafka};
use crate::redis::Redis;
use crate::service::{Service, variable};
use crate::{client, free_port, unique};

/// Settings of an edge that many clients with one address connect to.
pub const UNLIMITED: [(&str, &str); 2] =
    [("streams.max_per_address", "0"), ("http.max_connections_per_address", "0")];

/// The place where a test runs.
pub struct Testbed {
    /// A Redis that this test has for itself.
    pub redis: Redis,
    /// A topic that this test has for itself, on the shared Kafka.
    pub topic: String,
    /// Environment variables of all services.
    pub settings: BTreeMap<String, String>,
    brokers: String,
    folder: tempfile::TempDir,
}

/// An edge, and where it listens.
pub struct Edge {
    /// The process.
    pub service: Service,
    /// The base URL, `http://127.0.0.1:port`.
    pub url: String,
}

impl Testbed {
    /// Makes a topic of this many partitions on the shared Kafka, and starts a Redis.
    ///
    /// # Panics
    /// If either fails.
    pub async fn new(partitions: i32) -> Self {
        Self::on(kafka::shared(), partitions).await
    }

    /// Makes a topic of this many partitions on a Kafka that the test has for itself, and starts a Redis.
    ///
    /// # Panics
    /// If either fails.
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

    /// Sets a setting of all services, such as `locations.stale_after_seconds`.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.settings.insert(variable(key), value.to_owned());
        self
    }

    /// Returns a folder for files of the test.
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

    /// Starts a service with settings of its own.
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

    /// Starts an ingest and edges with settings of their own, and waits until all are ready.
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

    /// Makes a producer for the topic of the test.
    ///
    /// # Panics
    /// If the Kafka driver refuses.
    pub fn publisher(&self) -> Publisher {
        Publisher::new(&self.brokers, &self.topic).expect("a producer")
    }

    /// Returns the bootstrap address of Kafka.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }
}

impl Edge {
    /// Returns the URL of the stream of the map.
    pub fn stream(&self) -> String {
        format!("{}/v1/map/stream", self.url)
    }

    /// Returns the map that the edge has. It is empty if the edge does not answer with one.
    pub async fn map(&self) -> Map {
        self.locations().await.map(|body| map_of(&body)).unwrap_or_default()
    }

    /// Returns the body of `GET /v1/map/locations`.
    pub async fn locations(&self) -> Option<Value> {
        let response = client().get(format!("{}/v1/map/locations", self.url)).send().await.ok()?;
        response.error_for_status().ok()?.json().await.ok()
    }
}
