//! Whether Redis evicts. A Redis that does throws inboxes, tickets and logs away once its memory is full, and says
//! nothing of it, so services refuse to start on one.

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

/// What keeps Redis from evicting.
const NO_EVICTION: &str = "noeviction";
/// How often the policy is read, besides on each reconnect.
const LOOK: Duration = Duration::from_secs(60);
/// How often evictions are looked for where mailboxes may suffer from them.
const LOOK_FOR_EVICTED: Duration = Duration::from_secs(60);
/// While a node goes on evicting it is told so often at most, in seconds: each time costs every device a reset.
const TELL_AGAIN: u64 = 3600;
/// The hash with the evictions of each node that followers have been told of.
const TOLD: &str = "tutti:evicted";
/// Lets one of all services tell of a node's evictions.
static CLAIM: LazyLock<Script> = LazyLock::new(|| Script::from_lua(include_str!("lua/claim_eviction.lua")));
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
pub async fn watch_eviction_policy(client: &Client, metrics: &RedisMetrics, is_allowed: bool) {
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
                    "Redis may evict: inboxes, tickets and logs may be lost; run: CONFIG SET maxmemory-policy noeviction, or \
                     set it in the parameter group of a managed Redis"
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
pub async fn announce_evictions(client: &Client, mailboxes: &Mailboxes) {
    let mut looks = interval(LOOK_FOR_EVICTED);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if let Err(error) = announce_new_evictions(client, mailboxes).await {
            warn!(%error, "evictions by Redis are looked for again");
        }
    }
}

/// Tells followers of mailboxes if Redis has evicted something of which they were not told, unless they were told within
/// the last hour.
///
/// # Errors
/// [`Error::Redis`] if Redis does not answer; some may have been told then, and are told again.
pub async fn announce_new_evictions(client: &Client, mailboxes: &Mailboxes) -> Result<(), Error> {
    let doing = "noting what Redis has evicted";
    for (server, stats) in infos(client, InfoKind::Default).await? {
        let evicted = field(&stats, "evicted_keys").and_then(|count| count.parse::<u64>().ok());
        // What it holds is lost with the process, and so is the count.
        let (Some(node), Some(evicted)) = (field(&stats, "run_id"), evicted) else { continue };
        let words: Vec<Value> = vec![node.into(), evicted.to_string().into()];
        let now: u64 = run_script(client, &CLAIM, TOLD, words).await.map_err(Error::redis(doing))?;
        if now == 0 {
            continue;
        }
        warn!(?server, evicted, "Redis has evicted keys; devices with inboxes get a reset");
        for bucket in 0..mailboxes.buckets() {
            mailboxes.announce_gap(bucket, EVICTED).await?;
        }
        let fields = vec![(node.to_owned(), evicted), (format!("{node}:until"), now + TELL_AGAIN)];
        let () = client.hset(TOLD, fields).await.map_err(Error::redis(doing))?;
    }
    Ok(())
}

/// The policy of a node that may evict, if there is one. Nodes that do not answer, or do not tell, are passed over.
async fn evicting_policy(client: &Client) -> Result<Option<String>, Error> {
    let infos = infos(client, InfoKind::Memory).await?;
    // Without a limit on its memory a node never evicts.
    let limited = infos.iter().filter(|(_, memory)| field(memory, "maxmemory") != Some("0"));
    let mut policies = limited.filter_map(|(_, memory)| field(memory, "maxmemory_policy"));
    Ok(policies.find(|policy| *policy != NO_EVICTION).map(str::to_owned))
}

/// Asks each node that is written to for a part of its `INFO`.
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
