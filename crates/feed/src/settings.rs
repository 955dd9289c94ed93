//! Settings that all services sharing a Redis must agree on stand in Redis.

use std::time::Duration;

use fred::prelude::*;
use tracing::warn;

use crate::error::Error;

/// Writes each setting that Redis does not have yet to the hash `tutti:settings:<group>`, and
/// compares the others.
///
/// # Errors
/// [`Error::Disagreement`] if Redis has another value, [`Error::Redis`] if it does not answer.
async fn agree(client: &Client, group: &str, settings: &[(&str, String)]) -> Result<(), Error> {
    let key = format!("tutti:settings:{group}");
    let doing = || format!("comparing the settings of {group} with those in Redis");
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

/// The same, for as long as it takes Redis to be there.
///
/// # Errors
/// [`Error::Disagreement`] only.
pub async fn agree_when_there(
    client: &Client,
    group: &str,
    settings: &[(&str, String)],
) -> Result<(), Error> {
    let mut said = false;
    loop {
        match agree(client, group, settings).await {
            Ok(()) => return Ok(()),
            Err(error @ Error::Disagreement { .. }) => return Err(error),
            Err(error) => {
                if !std::mem::replace(&mut said, true) {
                    warn!(%error, "waiting for Redis");
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
}
