//! One topic: a member of its consumer group, and a task for each partition that the group assigns to it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;
use tutti_kafka::{AssignedPartition, Consumer, ConsumerOptions};
use tutti_service::{Failure, Latch};

use crate::assembly::{Assembly, Services};
use crate::config::{CLIENT_ID, Kind, Route};
use crate::partition::RouteContext;
use crate::rejected::Rejected;
use crate::tasks::PartitionTasks;

/// How long leaving the group may take. After it, the group waits for the end of the member's session.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before Kafka is asked again for its cluster id.
const CLUSTER_ID_PAUSE: Duration = Duration::from_secs(1);

/// Runs a route until the service stops. Opens `latch` once the group has answered.
///
/// # Errors
/// If the Kafka client refuses the configuration, or the task of a partition panics.
pub(crate) async fn run(services: Services, route: Route, latch: Option<Latch>) -> Result<(), Failure> {
    let Services { config, metrics, stop, .. } = &services;
    let rejected = Rejected::new(config, &route.topic, metrics)?;
    let (fetch_min_bytes, fetch_wait_max) = fetch_pace(&route.kind);
    let options = ConsumerOptions {
        client_id: CLIENT_ID,
        topic: &route.topic,
        group: &route.group,
        fetch_min_bytes,
        fetch_wait_max,
    };
    let (consumer, assigned) = Consumer::join(&config.kafka, &options, metrics.partition_metrics.clone())?;
    let consumer = Arc::new(consumer);
    let mut tasks = PartitionTasks::default();
    let panicked = tasks.panicked();
    let ended = tokio::select! {
        () = serve(&services, &route, &consumer, &rejected, assigned, &mut tasks, latch) => Ok(()),
        () = consumer.poll() => Ok(()),
        () = stop.cancelled() => Ok(()),
        () = panicked.notified() => Err(Failure::Other(format!("a partition of {} panicked", route.topic))),
    };
    tasks.abort().await;
    let _ = timeout(LEAVE_TIMEOUT, spawn_blocking(move || drop(consumer))).await;
    ended
}

/// Returns how many bytes a broker collects before it answers a fetch, and how long it may take.
fn fetch_pace(kind: &Kind) -> (u32, Duration) {
    match kind {
        // A record that is fetched alone costs the Kafka client, Redis and each edge as much as many records do.
        Kind::Notifications { .. } => (65_536, Duration::from_millis(20)),
        // A partition whose queue was full is fetched again only once the broker has answered for the others. It takes
        // its time if these are quiet.
        Kind::Locations { .. } | Kind::Events { .. } => (1, Duration::from_millis(100)),
    }
}

/// Starts a task for each partition that the group assigns.
async fn serve(
    services: &Services,
    route: &Route,
    consumer: &Arc<Consumer>,
    rejected: &Rejected,
    mut assigned: UnboundedReceiver<Vec<AssignedPartition>>,
    tasks: &mut PartitionTasks,
    mut latch: Option<Latch>,
) {
    let mut assembly = None;
    while let Some(partitions) = assigned.recv().await {
        // A member that has been assigned no partition is a member too.
        if let Some(latch) = latch.take() {
            latch.open();
        }
        let assembly = match &assembly {
            Some(assembly) => assembly,
            None => {
                let context = RouteContext {
                    cluster: cluster_id(consumer).await,
                    consumer: consumer.clone(),
                    redis: services.redis.clone(),
                    route: route.clone(),
                    metrics: services.metrics.clone(),
                    rejected: rejected.clone(),
                    started_at: Instant::now(),
                };
                assembly.insert(Assembly::new(services.clone(), context))
            }
        };
        for partition in partitions {
            tasks.spawn(partition.partition, assembly.run(partition));
        }
    }
}

/// Asks Kafka for the cluster's id until it answers.
async fn cluster_id(consumer: &Consumer) -> String {
    loop {
        if let Some(id) = consumer.cluster_id().await {
            return id;
        }
        warn!("Kafka did not tell its cluster id. It is asked again in a second.");
        sleep(CLUSTER_ID_PAUSE).await;
    }
}
