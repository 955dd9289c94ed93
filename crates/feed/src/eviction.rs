//! Whether Redis evicts. A Redis that does throws inboxes, tickets and logs away once its memory is full, and says
//! nothing of it, so services refuse to start on one.

use std::time::Duration;

use fred::prelude::*;
use fred::types::InfoKind;
use fred::types::config::Server;
use futures_util::future::join_all;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::error::Error;
use crate::mailbox::Mailboxes;
use crate::metrics::RedisMetrics;

/// What keeps Redis from evicting.
const NO_EVICTION: &str = "noeviction";
/// How often the policy is read, besides on each reconnect.
const LOOK: Duration = Duration::from_secs(60);
/// How often evictions are looked for where mailboxes may suffer from them: each one found costs every device a
/// reset.
const LOOK_FOR_EVICTED: Duration = Duration::from_secs(60);
/// The hash with the evictions of each node that followers have been told of.
const TOLD: &str = "tutti:evicted";
/// The word for why something is missing.
const EVICTED: &str = "evicted";

/// # Errors
/// [`Error::Evicts`] if a node may evict and that is not allowed, [`Error::Redis`] if no node answers.
pub(crate) async fn check(client: &Client, is_allowed: bool) -> Result<(), Error> {
    match evicting_policy(client).await? {
        Some(policy) if !is_allowed => Err(Error::Evicts(policy)),
        _ => Ok(()),
    }
}

/// Looks again and again, for ever, whether a Redis that was fine at the start has come to evict: it may be another
/// after a reconnect. It is said once in the log and in the metrics, and no stream ends for it.
pub async fn watch_eviction(client: &Client, metrics: &RedisMetrics, is_allowed: bool) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reconnects = client.reconnect_rx();
    let mut evicts = false;
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            Ok(_) | Err(RecvError::Lagged(_)) = reconnects.recv() => {}
        }
        // While Redis does not answer nothing is known, and others say so.
        let Ok(policy) = evicting_policy(client).await else { continue };
        let may_evict = i64::from(policy.is_some());
        match (policy, evicts) {
            (Some(policy), false) if is_allowed => {
                warn!(
                    policy,
                    "Redis may evict, which redis.allow_eviction allows: inboxes and tickets may be lost"
                );
                evicts = true;
            }
            (Some(policy), false) => {
                error!(
                    policy,
                    "Redis may evict: inboxes, tickets and logs may be lost; run: CONFIG SET maxmemory-policy noeviction"
                );
                evicts = true;
            }
            (None, true) => {
                info!("Redis does not evict any more");
                evicts = false;
            }
            _ => {}
        }
        metrics.evicts.set(may_evict);
    }
}

/// Looks again and again, for ever, whether Redis has evicted something, and tells all followers of mailboxes: nobody
/// knows whose items are missing.
pub async fn tell_evictions(client: &Client, mailboxes: &Mailboxes) {
    let mut looks = interval(LOOK_FOR_EVICTED);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if let Err(error) = tell_new_evictions(client, mailboxes).await {
            warn!(%error, "evictions by Redis are looked for again");
        }
    }
}

/// Tells followers of mailboxes if Redis has evicted something of which they were not told.
///
/// # Errors
/// [`Error::Redis`] if Redis does not answer; some may have been told then, and are told again.
pub async fn tell_new_evictions(client: &Client, mailboxes: &Mailboxes) -> Result<(), Error> {
    let doing = "noting what Redis has evicted";
    for (server, stats) in infos(client, InfoKind::Default).await? {
        let evicted = field(&stats, "evicted_keys").and_then(|count| count.parse::<u64>().ok());
        let (Some(node), Some(evicted @ 1..)) = (field(&stats, "run_id"), evicted) else { continue };
        // What it holds is lost with the process, and so is the count.
        let told: Option<u64> = client.hget(TOLD, node).await.map_err(Error::redis(doing))?;
        if told.is_some_and(|told| told >= evicted) {
            continue;
        }
        warn!(?server, evicted, "Redis has evicted keys; devices with inboxes get a reset");
        for bucket in 0..mailboxes.buckets() {
            mailboxes.announce_gap(bucket, EVICTED).await?;
        }
        let () = client.hset(TOLD, (node, evicted)).await.map_err(Error::redis(doing))?;
    }
    Ok(())
}

/// The policy of a node that may evict, if there is one. Nodes that do not answer, or do not tell, are passed over.
async fn evicting_policy(client: &Client) -> Result<Option<String>, Error> {
    let infos = infos(client, InfoKind::Memory).await?;
    let policies = infos.iter().filter_map(|(_, memory)| field(memory, "maxmemory_policy"));
    Ok(policies.into_iter().find(|policy| *policy != NO_EVICTION).map(str::to_owned))
}

/// What each node that is written to tells of itself.
async fn infos(client: &Client, kind: InfoKind) -> Result<Vec<(Option<Server>, String)>, Error> {
    let doing = "asking Redis for its state";
    if !client.is_clustered() {
        let info = client.info(Some(kind)).await.map_err(Error::redis(doing))?;
        return Ok(vec![(None, info)]);
    }
    let nodes = client.cached_cluster_state().map(|nodes| nodes.unique_primary_nodes()).unwrap_or_default();
    let asked = nodes.into_iter().map(async |node| {
        let info = client.with_cluster_node(&node).info(Some(kind.clone())).await;
        (Some(node), info)
    });
    let (mut infos, mut failed) = (Vec::new(), None);
    for (node, info) in join_all(asked).await {
        match info {
            Ok(info) => infos.push((node, info)),
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if infos.is_empty() => Err(Error::redis(doing)(error)),
        _ => Ok(infos),
    }
}

/// A field of what `INFO` answers.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
