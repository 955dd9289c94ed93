//! What must hold of a Redis before it is used: it is new enough and does not evict, and all services that share it agree on the
//! settings that stand in it.

use std::pin::pin;
use std::time::Duration;

use fred::prelude::*;
use fred::types::InfoKind;
use tracing::warn;

use crate::error::{Error, explain};
use crate::eviction;

/// The oldest Redis, by its major version, that has all commands.
const OLDEST: u32 = 7;

/// # Errors
/// [`Error::TooOld`], or [`Error::Redis`] if it does not answer.
async fn check_version(client: &Client) -> Result<(), Error> {
    let doing = "asking for the version of Redis";
    let info: String = client.info(Some(InfoKind::Server)).await.map_err(Error::redis(doing))?;
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or_default();
    match version.split('.').next().map(str::parse::<u32>) {
        Some(Ok(major)) if major < OLDEST => Err(Error::TooOld(version.to_owned())),
        Some(Ok(_)) => Ok(()),
        _ => Err(Error::Answer { doing: doing.to_owned(), answer: info }),
    }
}

/// Writes each setting that Redis does not have yet to the hash `tutti:settings:<group>`, and
/// compares the others.
///
/// # Errors
/// [`Error::Disagreement`] if Redis has another value, [`Error::TooOld`], [`Error::Evicts`], [`Error::Redis`] if it
/// does not answer.
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

/// Waits until Redis is there, and compares the settings. `waits` is told why it is not there yet.
///
/// # Errors
/// [`Error::Disagreement`], [`Error::TooOld`] and [`Error::Evicts`] only.
pub async fn wait_for_agreement(
    client: &Client,
    group: &str,
    settings: &[(&str, String)],
    allow_eviction: bool,
    waits: impl Fn(&str),
) -> Result<(), Error> {
    // Commands that wait for a connection do not say why there is none.
    let mut errors = client.error_rx();
    let mut said = false;
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
                if !std::mem::replace(&mut said, true) {
                    warn!(%error, "waiting for Redis");
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
}
