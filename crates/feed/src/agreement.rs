//! What must hold of a Redis before a service uses it: it is new enough, it does not evict, and all services that
//! share it agree on the settings that are stored in it.

use std::pin::pin;
use std::time::Duration;

use fred::prelude::*;
use fred::types::InfoKind;
use tokio::time::sleep;
use tracing::warn;

use crate::error::{Error, explain};
use crate::eviction;

/// Oldest major version of Redis that has all commands.
const OLDEST_VERSION: u32 = 7;
/// Pause between two attempts to reach Redis.
const RETRY: Duration = Duration::from_millis(500);

/// Waits until Redis is there, and checks that this service may use it: its version, its eviction policy, and the
/// settings of a group. Settings that Redis does not have yet are written to the hash `tutti:settings:<group>`.
/// `waits` receives the reasons why Redis is not there yet.
///
/// # Errors
/// [`Error::Disagreement`] if Redis has another value of a setting, [`Error::TooOld`], or [`Error::Evicts`]. Any
/// other error is waited out.
pub async fn wait_for_agreement(
    client: &Client,
    group: &str,
    settings: &[(&str, String)],
    allow_eviction: bool,
    waits: impl Fn(&str),
) -> Result<(), Error> {
    // Commands that wait for a connection do not say why there is none. The client does.
    let mut errors = client.error_rx();
    let mut is_logged = false;
    loop {
        let mut agreeing = pin!(agree(client, group, settings, allow_eviction));
        let agreed = loop {
            tokio::select! {
                agreed = &mut agreeing => break agreed,
                Ok((error, _)) = errors.recv() => waits(&explain(&error)),
            }
        };
        match agreed {
            Ok(()) => return Ok(()),
            Err(error @ (Error::Disagreement { .. } | Error::TooOld(_) | Error::Evicts(_))) => {
                return Err(error);
            }
            Err(error) => {
                if !error.is_timeout() {
                    waits(&error.to_string());
                }
                if !std::mem::replace(&mut is_logged, true) {
                    warn!(%error, "waiting for Redis");
                }
                sleep(RETRY).await;
            }
        }
    }
}

async fn agree(
    client: &Client,
    group: &str,
    settings: &[(&str, String)],
    allow_eviction: bool,
) -> Result<(), Error> {
    let key = format!("tutti:settings:{group}");
    let doing = || format!("comparing the settings of {group} with those in Redis");
    check_version(client).await?;
    eviction::check(client, allow_eviction).await?;
    for (name, ours) in settings {
        let () = client.hsetnx(&key, *name, ours.as_str()).await.map_err(Error::redis(doing()))?;
        let theirs: Option<String> = client.hget(&key, *name).await.map_err(Error::redis(doing()))?;
        if let Some(theirs) = theirs
            && theirs != *ours
        {
            return Err(Error::Disagreement { name: (*name).to_owned(), ours: ours.clone(), theirs, key });
        }
    }
    Ok(())
}

async fn check_version(client: &Client) -> Result<(), Error> {
    let doing = "asking for the version of Redis";
    let info: String = client.info(Some(InfoKind::Server)).await.map_err(Error::redis(doing))?;
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or_default();
    match version.split('.').next().map(str::parse::<u32>) {
        Some(Ok(major)) if major < OLDEST_VERSION => Err(Error::TooOld(version.to_owned())),
        Some(Ok(_)) => Ok(()),
        _ => Err(Error::Answer { doing: doing.to_owned(), answer: info }),
    }
}
