//! One topic's way: a member of its consumer group, and a task for each partition that it holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use tutti_feed::{Client, Feed, MailboxLimits, Mailboxes, OffsetHistory, Replicas};
use tutti_model::names;
use tutti_service::shared::Inboxes;
use tutti_service::{Failure, Latch};

use crate::batch::{Judge, Rules};
use crate::config::{Config, Kind, Route};
use crate::filer::Filer;
use crate::kafka::{self, Granted, Group};
use crate::mail::MailSink;
use crate::metrics::Metrics;
use crate::partition::{Partition, Shared};
use crate::rejected::Rejected;
use crate::sink::FeedSink;

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
    replicas: Replicas,
    metrics: Metrics,
    mut latch: Option<Latch>,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let refused = |e| Failure::Config(kafka::refused(&e));
    let rejected = Rejected::new(&config, &route.topic, &metrics).map_err(refused)?;
    let (group, mut granted) = Group::join(&config, &route, &metrics).map_err(refused)?;
    let group = Arc::new(group);
    let connection_epoch = tutti_feed::connection_epoch(&client);
    let filers: Arc<[Filer]> = match route.kind {
        Kind::Notifications { .. } => {
            let mailboxes = mailboxes(&config, &client, &replicas, &metrics);
            (0..mailboxes.buckets()).map(|bucket| Filer::start(mailboxes.clone(), bucket)).collect()
        }
        Kind::Locations { .. } | Kind::Events { .. } => [].into(),
    };
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
                    connection_epoch: connection_epoch.clone(),
                    replicas: replicas.clone(),
                    began: Instant::now(),
                    filers: filers.clone(),
                })),
            };
            for grant in grants {
                let number = grant.partition;
                let before = tasks.remove(&number);
                let partition = carry(shared.clone(), grant);
                let panicked = panicked.clone();
                let task = tokio::spawn(async move {
                    // The driver wakes only one reader of a partition's queue.
                    if let Some(before) = before {
                        let _ = before.await;
                    }
                    let ended = std::panic::AssertUnwindSafe(partition).catch_unwind().await;
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

/// A partition's records to where its route says, until it is taken back.
fn carry(shared: Arc<Shared>, grant: Granted) -> BoxFuture<'static, ()> {
    let (config, source) = (shared.config.clone(), shared.source(grant.partition));
    let feed = |name: &str, limits| {
        let feed = Feed::new(shared.client.clone(), name, limits, shared.metrics.append.clone());
        feed.with_replicas(shared.replicas.clone())
    };
    match &shared.route.kind {
        Kind::Locations { format } => {
            let shard = names::shard_of(grant.partition, config.locations.shards);
            let stale_after_ms = config.locations.stale_after.as_millis() as i64;
            let left_out = shared.metrics.left_out_of(&shared.route.topic);
            let judge = Judge::Locations(Rules { format: *format, stale_after_ms, left_out });
            let feed = feed(&names::locations_feed(shard), config.limits);
            let sink = FeedSink { feed, source, judge };
            Partition::new(shared, grant, sink, config.limits.max_age).run().boxed()
        }
        Kind::Events { event } => {
            let judge = Judge::Events { event: event.clone() };
            let feed = feed(&names::topic_feed(&shared.route.topic), config.topic_limits);
            let sink = FeedSink { feed, source, judge };
            Partition::new(shared, grant, sink, config.topic_limits.max_age).run().boxed()
        }
        Kind::Notifications { format } => {
            let age = config.inboxes.age;
            let sink = MailSink {
                mailboxes: mailboxes(&config, &shared.client, &shared.replicas, &shared.metrics),
                filers: shared.filers.clone(),
                history: OffsetHistory::new(shared.client.clone(), &source),
                source,
                format: *format,
                keep: age,
                connection_epoch: shared.connection_epoch.clone(),
                noted: Mutex::default(),
            };
            Partition::new(shared, grant, sink, age).run().boxed()
        }
    }
}

/// The mailboxes as the configuration has them.
pub(crate) fn mailboxes(
    config: &Config,
    client: &Client,
    replicas: &Replicas,
    metrics: &Metrics,
) -> Mailboxes {
    let Inboxes { buckets, items, bytes, age } = config.inboxes;
    let keep = MailboxLimits { items, bytes, age };
    let mailboxes = Mailboxes::new(client.clone(), names::INBOX, buckets, keep, metrics.mailboxes.clone());
    mailboxes.with_replicas(replicas.clone())
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
