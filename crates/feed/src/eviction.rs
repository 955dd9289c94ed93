//! Eviction by Redis.
//!
//! A Redis with another `maxmemory-policy` than `noeviction` deletes mailboxes, tickets and logs once its memory is
//! full, and tells nobody. So services refuse to start on one ([`check`]), and watch the policy while they run
//! ([`watch_eviction_policy`]). Where an operator allows eviction, followers of mailboxes are told of it
//! ([`announce_evictions`]).

use std::sync::LazyLock;
use std::time::Duration;

use fred::prelude::*;
use fred::types::InfoKind;
use fred::types::config::Server;
use fred::types::scripts::Script;
use futures_util::future::join_all;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::error::Error;
use crate::mailbox::Mailboxes;
use crate::metrics::RedisMetrics;
use crate::script::run_script;

/// The `maxmemory-policy` of a Redis that does not evict.
const NO_EVICTION: &str = "noeviction";
/// How often the policy is read, beside after each reconnect.
const POLICY_INTERVAL: Duration = Duration::from_secs(60);
/// How often the numbers of evictions are read.
const EVICTIONS_INTERVAL: Duration = Duration::from_secs(60);
/// Pause in seconds after the evictions of a node were announced: each announcement costs every device a reset.
const ANNOUNCE_AGAIN_SECONDS: u64 = 3600;
/// Key of the hash with the number of evictions of each node that were announced.
const ANNOUNCED_KEY: &str = "tutti:evicted";
/// Chooses one of all services to announce the evictions of a node.
static CLAIM: LazyLock<Script> = LazyLock::new(|| Script::from_lua(include_str!("lua/claim_eviction.lua")));
/// The reason of the gap that is announced.
const EVICTED: &str = "evicted";

/// Checks that no node of Redis may evict.
///
/// # Errors
/// [`Error::Evicts`] if a node may evict and that is not allowed, [`Error::Redis`] if no node answers.
pub(crate) async fn check(client: &Client, is_allowed: bool) -> Result<(), Error> {
    match evicting_policy(client).await? {
        Some(policy) if !is_allowed => Err(Error::Evicts(policy)),
        _ => Ok(()),
    }
}

/// Watches for ever whether Redis may evict: after a reconnect it may be another Redis than at the start. A change
/// goes to the log and to the metrics. No stream ends for it.
pub async fn watch_eviction_policy(client: &Client, metrics: &RedisMetrics, is_allowed: bool) {
    let mut reads = interval(POLICY_INTERVAL);
    reads.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reconnects = client.reconnect_rx();
    let mut evicts = false;
    loop {
        tokio::select! {
            _ = reads.tick() => {}
            Ok(_) | Err(RecvError::Lagged(_)) = reconnects.recv() => {}
        }
        // While Redis does not answer nothing is known. The log says so elsewhere.
        let Ok(policy) = evicting_policy(client).await else { continue };
        let may_evict = i64::from(policy.is_some());
        match (policy, evicts) {
            (Some(policy), false) if is_allowed => {
                warn!(
                    policy,
                    "Redis may evict keys, which redis.allow_eviction allows: inboxes and tickets may be lost"
                );
                evicts = true;
            }
            (Some(policy), false) => {
                error!(
                    policy,
                    "Redis may evict keys: inboxes, tickets and logs may be lost; run: CONFIG SET maxmemory-policy \
                     noeviction, or set it in the parameter group of a managed Redis"
                );
                evicts = true;
            }
            (None, true) => {
                info!("Redis does not evict keys any more");
                evicts = false;
            }
            _ => {}
        }
        metrics.evicts.set(may_evict);
    }
}

/// Announces for ever what Redis evicts, as a gap in all mailboxes: nobody knows whose items are missing.
pub async fn announce_evictions(client: &Client, mailboxes: &Mailboxes) {
    let mut reads = interval(EVICTIONS_INTERVAL);
    reads.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        reads.tick().await;
        if let Err(error) = announce_new_evictions(client, mailboxes).await {
            warn!(%error, "evictions by Redis could not be read or announced; trying again in a minute");
        }
    }
}

/// Announces a gap in all mailboxes if Redis has evicted something since the last announcement, unless that was
/// within the last hour.
///
/// # Errors
/// [`Error::Redis`] if Redis does not answer. Some buckets may have been told; the next call tells them again.
pub async fn announce_new_evictions(client: &Client, mailboxes: &Mailboxes) -> Result<(), Error> {
    let doing = "noting what Redis has evicted";
    for (server, stats) in infos(client, InfoKind::Default).await? {
        let evicted = field(&stats, "evicted_keys").and_then(|count| count.parse::<u64>().ok());
        // The id is that of the process. A restart loses the memory, and the count with it.
        let (Some(node), Some(evicted)) = (field(&stats, "run_id"), evicted) else { continue };
        let words: Vec<Value> = vec![node.into(), evicted.to_string().into()];
        let now: u64 = run_script(client, &CLAIM, ANNOUNCED_KEY, words).await.map_err(Error::redis(doing))?;
        if now == 0 {
            continue;
        }
        warn!(?server, evicted, "Redis has evicted keys; every device with an inbox gets a reset");
        for bucket in 0..mailboxes.buckets() {
            mailboxes.announce_gap(bucket, EVICTED).await?;
        }
        let fields =
            vec![(node.to_owned(), evicted), (format!("{node}:until"), now + ANNOUNCE_AGAIN_SECONDS)];
        let () = client.hset(ANNOUNCED_KEY, fields).await.map_err(Error::redis(doing))?;
    }
    Ok(())
}

/// Returns the policy of a node that may evict, if there is one. Nodes that do not answer, or do not tell, are passed
/// over.
async fn evicting_policy(client: &Client) -> Result<Option<String>, Error> {
    let infos = infos(client, InfoKind::Memory).await?;
    // A node without a limit on its memory never evicts.
    let limited = infos.iter().filter(|(_, memory)| field(memory, "maxmemory") != Some("0"));
    let mut policies = limited.filter_map(|(_, memory)| field(memory, "maxmemory_policy"));
    Ok(policies.find(|policy| *policy != NO_EVICTION).map(str::to_owned))
}

/// Returns a section of the `INFO` of each primary.
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

/// Returns a field of an answer to `INFO`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
