//! One topic's way: a member of its consumer group, and a task for each partition that it holds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use tutti_feed::Client;
use tutti_service::{Failure, Latch};

use crate::config::{Config, Route};
use crate::kafka::Group;
use crate::metrics::Metrics;
use crate::partition::{Partition, Shared};
use crate::rejected::Rejected;

/// Runs a route until it is told to stop.
///
/// # Errors
/// If the driver refuses its configuration.
pub(crate) async fn run(
    config: Arc<Config>,
    route: Route,
    client: Client,
    metrics: Metrics,
    latch: Latch,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let refused = |e| Failure::Config(format!("kafka.properties: {e}"));
    let rejected = Rejected::new(&config, &route.topic, &metrics).map_err(refused)?;
    let (group, mut granted) = Group::join(&config, &route, &metrics).map_err(refused)?;
    let group = Arc::new(group);
    let mut tasks: HashMap<i32, JoinHandle<()>> = HashMap::new();
    let mut latch = Some(latch);
    let work = async {
        let mut shared = None;
        while let Some(grants) = granted.recv().await {
            // A member that has been given nothing is one, too.
            if let Some(latch) = latch.take() {
                latch.open();
            }
            let shared = match &shared {
                Some(shared) => shared,
                None => shared.insert(Arc::new(Shared {
                    cluster: cluster_id(&group).await,
                    group: group.clone(),
                    client: client.clone(),
                    config: config.clone(),
                    route: route.clone(),
                    metrics: metrics.clone(),
                    rejected: rejected.clone(),
                })),
            };
            tasks.retain(|_, task| !task.is_finished());
            for grant in grants {
                let number = grant.partition;
                let before = tasks.remove(&number);
                let partition = Partition::new(shared.clone(), grant);
                let task = tokio::spawn(async move {
                    // The driver wakes only one reader of a partition's queue.
                    if let Some(before) = before {
                        let _ = before.await;
                    }
                    partition.run().await;
                });
                tasks.insert(number, task);
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = group.poll() => {}
        () = stop.cancelled() => {}
    }
    for (_, task) in tasks {
        task.abort();
        let _ = task.await;
    }
    // Leaving the group talks to Kafka.
    let _ = tokio::task::spawn_blocking(move || drop(group)).await;
    Ok(())
}

/// The cluster's id: two clusters' partitions of one name are two sources.
async fn cluster_id(group: &Group) -> String {
    loop {
        if let Some(id) = group.cluster_id().await {
            return id;
        }
        warn!("Kafka does not tell its cluster id; asking again");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
