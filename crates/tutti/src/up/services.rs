//! The services, each configured as its own process would be.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tutti_edge::Edge;
use tutti_ingest::Ingest;
use tutti_notify::Notify;
use tutti_queue::Queue;
use tutti_service::{
    Admin, CancellationToken, Context, Failure, Readiness, Registry, Service, Settings, serve_admin,
};

use super::backends::Backends;
use super::options::{Options, Ports};
use crate::passes::new_key;

/// How long stopping may take.
const GRACE: Duration = Duration::from_secs(8);

/// The services, and other tasks that run beside them.
pub(super) struct Services {
    /// Cancelled to stop everything.
    pub(super) stop: CancellationToken,
    /// A task for each service. A service that ends by itself is a failure.
    pub(super) tasks: JoinSet<Result<(), Failure>>,
    /// The readiness of each service, by name.
    pub(super) ready: Vec<(&'static str, Readiness)>,
    /// Base URLs of the edges.
    pub(super) urls: Vec<String>,
    /// The folder of the key that passes are signed with.
    _keys: tempfile::TempDir,
}

/// The metrics of the services whose figures `tutti up` shows.
pub(super) struct ServiceMetrics {
    pub(super) ingest: tutti_ingest::Metrics,
    pub(super) edges: Vec<tutti_edge::Metrics>,
}

impl Services {
    /// Starts ingest, the queue, notify and two edges.
    ///
    /// # Errors
    /// If one is configured wrongly.
    pub(super) async fn start(
        options: &Options,
        ports: &Ports,
        backends: &Backends,
    ) -> anyhow::Result<(Self, ServiceMetrics)> {
        let keys = tempfile::tempdir().context("a temporary folder for the key")?;
        let key = keys.path().join("pass-key.pem");
        std::fs::write(&key, new_key()).context("writing the key")?;
        let urls: Vec<String> = ports.edges.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
        let mut services = Self {
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
            ready: Vec::new(),
            urls,
            _keys: keys,
        };
        let redis = ("TUTTI_REDIS_URL".to_owned(), backends.redis.clone());
        let common =
            BTreeMap::from([redis.clone(), ("TUTTI_KAFKA_BROKERS".to_owned(), backends.kafka.clone())]);

        let mut variables = common.clone();
        if backends.embeds_kafka {
            // The embedded broker cannot look offsets up by time, and answers a fetch only when its time is over.
            variables.insert("TUTTI_ROUTES_LOCATIONS_START".into(), "beginning".into());
            variables.insert("TUTTI_KAFKA_PROPERTIES_FETCH_WAIT_MAX_MS".into(), "20".into());
        }
        let ingest = services.add::<Ingest>("ingest", &variables, ports.admin[0]).await?;

        let mut variables = common.clone();
        variables.insert("TUTTI_GRPC_LISTEN".into(), format!("127.0.0.1:{}", ports.queue));
        variables.insert("TUTTI_PASSES_KEY_FILE".into(), key.to_string_lossy().into_owned());
        services.add::<Queue>("queue", &variables, ports.admin[3]).await?;

        let mut variables = common;
        variables.insert("TUTTI_GRPC_LISTEN".into(), format!("127.0.0.1:{}", ports.notify));
        services.add::<Notify>("notify", &variables, ports.admin[4]).await?;

        let mut edges = Vec::new();
        for (i, port) in ports.edges.into_iter().enumerate() {
            let variables = BTreeMap::from([
                redis.clone(),
                ("TUTTI_HTTP_LISTEN".into(), format!("127.0.0.1:{port}")),
                ("TUTTI_HTTP_WORKERS".into(), "1".into()),
                // All clients have one address.
                ("TUTTI_HTTP_MAX_CONNECTIONS_PER_ADDRESS".into(), "0".into()),
                ("TUTTI_STREAMS_MAX_PER_ADDRESS".into(), "0".into()),
                ("TUTTI_HTTP_EDGES".into(), services.urls.join(",")),
                ("TUTTI_CORS_ORIGINS".into(), "*".into()),
                ("TUTTI_AUTH_HS256_SECRET".into(), options.secret.clone()),
                ("TUTTI_MAP_PUBLIC".into(), (!options.private).to_string()),
                ("TUTTI_STREAMS_DRAIN_SECONDS".into(), "1".into()),
                ("TUTTI_QUEUE_URLS".into(), format!("http://127.0.0.1:{}", ports.queue)),
                ("TUTTI_NOTIFY_URLS".into(), format!("http://127.0.0.1:{}", ports.notify)),
                ("TUTTI_EDGE_NAME".into(), format!("edge-{}", i + 1)),
            ]);
            edges.push(services.add::<Edge>("edge", &variables, ports.admin[i + 1]).await?);
        }
        Ok((services, ServiceMetrics { ingest, edges }))
    }

    /// Starts a service as its own process would, configured by variables alone.
    async fn add<S: Service<Config: Send + 'static, Metrics: Clone + Send + 'static> + 'static>(
        &mut self,
        name: &'static str,
        variables: &BTreeMap<String, String>,
        admin: u16,
    ) -> anyhow::Result<S::Metrics> {
        let mut settings = Settings::new(None, variables.clone());
        let config = S::configure(&mut settings);
        settings.finish().with_context(|| S::NAME.to_owned())?;
        let mut registry = Registry::with_prefix("tutti");
        let metrics = S::metrics(&mut registry);
        let readiness = Readiness::default();
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, admin))).await?;
        let serves = Admin { readiness: readiness.clone(), registry: Arc::new(registry) };
        tokio::spawn(serve_admin(listener, serves));
        let context = Context { stop: self.stop.clone(), readiness: readiness.clone(), grace: GRACE };
        self.tasks.spawn(S::run(config, metrics.clone(), context));
        self.ready.push((name, readiness));
        Ok(metrics)
    }

    /// Stops everything, and waits for it as long as stopping may take.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some_and(|ended| ended.is_ok()) {} };
        let _ = timeout(GRACE, all).await;
    }
}
