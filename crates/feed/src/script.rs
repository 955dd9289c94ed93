//! Running Lua scripts, which are the only writers of feeds.

use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::prelude::*;
use fred::types::MultipleKeys;
use fred::types::scripts::Script;
use tokio::time::sleep;

/// Attempts to run a script while its keys move from one node of a Cluster to another.
const MOVE_ATTEMPTS: u32 = 20;
/// Pause between two of these attempts.
const MOVE_PAUSE: Duration = Duration::from_millis(100);

/// Runs a script on the node that has its keys, whether or not the node knows the script.
///
/// # Errors
/// The error of Redis or of the driver.
pub async fn run_script<T: FromValue>(
    client: &Client,
    script: &Script,
    keys: impl Into<MultipleKeys>,
    args: Vec<Value>,
) -> Result<T, Error> {
    let keys: MultipleKeys = keys.into();
    let mut attempts = 0;
    loop {
        let answer = match client.evalsha(script.sha1().clone(), keys.clone(), args.clone()).await {
            // EVAL in place of SCRIPT LOAD: in a Cluster the latter goes to all nodes, and fails if one of them is
            // away.
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                client.eval(script.lua().cloned().unwrap_or_default(), keys.clone(), args.clone()).await
            }
            answer => answer,
        };
        match answer {
            Err(error) if attempts < MOVE_ATTEMPTS && is_moving(&error) => {
                attempts += 1;
                sleep(MOVE_PAUSE).await;
            }
            answer => return answer,
        }
    }
}

/// Reports whether the script itself failed, so that it would fail again: it found something in Redis that it does
/// not expect. A Redis that is away, has no memory left or accepts no writes is no such failure.
pub fn is_script_failure(error: &Error) -> bool {
    let details = error.details();
    ["ERR ", "WRONGTYPE "].iter().any(|word| details.starts_with(word)) && details.contains("user_script")
}

/// Reports whether a script did nothing because its keys are moving, or have arrived on another node (see
/// `MAX_REDIRECTIONS` in `redis.rs`).
fn is_moving(error: &Error) -> bool {
    ["TRYAGAIN", "Too many redirections"].iter().any(|words| error.details().starts_with(words))
}
