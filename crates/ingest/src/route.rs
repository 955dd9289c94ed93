//! One topic's way: a member of its consumer group, and a task for each partition that it holds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use tutti_feed::Client;
use tutti_service::{Failure, Latch};

use crate::config::{Config, Route};
use crate::kafka::{self, Group};
use crate::metrics::Metrics;
use crate::partition::{Partition, Shared};
use crate::rejected::Rejected;

/// How long leaving the group may take.
const LEAVING: Duration = Duration::from_secs(5);

/// Runs a route until it is told to stop.
///
/// # Errors
/// If the driver refuses its configuration.
pub(crate) async fn run(
    config: Arc<Config>,
    route: Route,
    client: Client,
    metrics: Metrics,
    mut latch: Option<Latch>,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let refused = |e| Failure::Config(kafka::refused(&e));
    let rejected = Rejected::new(&config, &route.topic, &metrics).map_err(refused)?;
    let (group, mut granted) = Group::join(&config, &route, &metrics).map_err(refused)?;
    let group = Arc::new(group);
    let mut tasks: HashMap<i32, JoinHandle<()>> = HashMap::new();
    let panicked = Arc::new(Notify::new());
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
            for grant in grants {
                let number = grant.partition;
                let before = tasks.remove(&number);
                let partition = Partition::new(shared.clone(), grant);
                let panicked = panicked.clone();
                let task = tokio::spawn(async move {
                    // The driver wakes only one reader of a partition's queue.
                    if let Some(before) = before {
                        let _ = before.await;
                    }
                    let ended = std::panic::AssertUnwindSafe(partition.run()).catch_unwind().await;
                    if ended.is_err() {
                        // The group would not know that nobody reads it any more.
                        panicked.notify_one();
                    }
                });
                tasks.insert(number, task);
            }
        }
    };
    let ended = tokio::select! {
        () = work => Ok(()),
        () = group.poll() => Ok(()),
        () = stop.cancelled() => Ok(()),
        () = panicked.notified() => Err(Failure::Other(format!("a partition of {} panicked", route.topic))),
    };
    for (_, task) in tasks {
        task.abort();
        let _ = task.await;
    }
    // Leaving the group talks to Kafka, which may not answer: its session ends by itself then.
    let _ = timeout(LEAVING, tokio::task::spawn_blocking(move || drop(group))).await;
    ended
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
