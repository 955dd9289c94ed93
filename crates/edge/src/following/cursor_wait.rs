//! Waiting for a cursor that this edge has not reached yet.

use std::time::Duration;

use tokio::time::Instant;

use crate::following::status::Status;
use tutti_sse::events::Events;

/// Time after which a waiting client receives the status `stale`.
const SAID_AFTER: Duration = Duration::from_secs(2);

/// One client's wait for a cursor that this edge has not reached yet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CursorWait {
    /// When the wait began.
    since: Option<Instant>,
    /// Number of polls of the heads at the first step that the client saw while waiting.
    polls_then: Option<u64>,
}

impl CursorWait {
    /// Whether the wait is over, because no history has the cursor: the heads in Redis were polled after the client
    /// came, and this edge has `reached` them. `polls` counts the polls so far.
    pub(crate) fn is_over(&mut self, polls: u64, reached: bool) -> bool {
        let then = *self.polls_then.get_or_insert(polls);
        // A poll that was under way when the client came may have read the heads before.
        polls >= then + 2 && reached
    }

    /// Returns until when to wait for another step, and the status `stale` if the wait has lasted for a while.
    pub(crate) fn wait(&mut self, now: Instant, status: &mut Option<Status>) -> (Instant, Events) {
        let mut events = Events::default();
        let say_at = *self.since.get_or_insert(now) + SAID_AFTER;
        if now < say_at {
            return (say_at, events);
        }
        let stale = Status::Stale { since_ms: None };
        if status.replace(stale) != Some(stale) {
            stale.write(&mut events);
        }
        (now + Duration::from_secs(10), events)
    }
}
