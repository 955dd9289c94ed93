//! Running scripts, the only writers of feeds.

use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::prelude::*;
use fred::types::MultipleKeys;
use fred::types::scripts::Script;
use tokio::time::sleep;

/// So often a script is tried again while its keys are on their way from one node of a Cluster to another.
const MOVES: u32 = 20;
const MOVE_PAUSE: Duration = Duration::from_millis(100);

/// Runs a script where its keys are, also where it was never run before.
///
/// # Errors
/// What Redis, or the driver, says of it.
pub async fn run_script<T: FromValue>(
    client: &Client,
    script: &Script,
    keys: impl Into<MultipleKeys>,
    args: Vec<Value>,
) -> Result<T, Error> {
    let keys: MultipleKeys = keys.into();
    let mut moves = 0;
    loop {
        let answer = match client.evalsha(script.sha1().clone(), keys.clone(), args.clone()).await {
            // Not SCRIPT LOAD: of a Cluster that goes to all nodes, and fails where one is away.
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                client.eval(script.lua().cloned().unwrap_or_default(), keys.clone(), args.clone()).await
            }
            answer => answer,
        };
        match answer {
            Err(error) if moves < MOVES && is_on_the_move(&error) => {
                moves += 1;
                sleep(MOVE_PAUSE).await;
            }
            answer => return answer,
        }
    }
}

/// Whether a script itself failed, so that it will fail again: it found something else in Redis than it expects.
/// A Redis that is away, has no memory left or takes no writes is no such failure.
pub fn is_script_failure(error: &Error) -> bool {
    let details = error.details();
    ["ERR ", "WRONGTYPE "].iter().any(|word| details.starts_with(word)) && details.contains("user_script")
}

/// Nothing was done: the keys are on their way, or have arrived on another node (see `redis.rs` `REDIRECTIONS`).
fn is_on_the_move(error: &Error) -> bool {
    ["TRYAGAIN", "Too many redirections"].iter().any(|words| error.details().starts_with(words))
}
