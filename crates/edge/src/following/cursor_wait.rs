//! A client that came with a place that this edge does not have: perhaps not yet.

use std::time::Duration;

use tokio::time::Instant;

use crate::map::tick::Status;
use crate::metrics::Metrics;
use crate::sse::frame::Events;
use tutti_model::events::{RESET, ResetReason, reset_data};

/// A client that is to wait is told so after this.
const SAID_AFTER: Duration = Duration::from_secs(2);

/// The id of a client that has been shown a part of what it is to be shown. Who comes back with it must
/// forget that part: what was removed meanwhile is not in the next snapshot.
pub(crate) const INCOMPLETE: &str = "0";

/// How long one client has been waiting.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Patience {
    since: Option<Instant>,
    /// How often heads had been asked for at the first step that it saw waiting.
    polls_then: Option<u64>,
}

impl Patience {
    /// Whether the place is known to be none: Redis's heads have been asked for after the client came,
    /// and this edge has reached them.
    pub(crate) fn is_over(&mut self, polls: u64, reached: bool) -> bool {
        let then = *self.polls_then.get_or_insert(polls);
        // The poll under way when the client came may have asked before.
        polls >= then + 2 && reached
    }

    /// Until when to wait for another step, and the status if that has lasted for a while.
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

/// What was shown before is void, and what follows replaces it.
pub(crate) fn write_reset(reason: ResetReason, events: &mut Events, metrics: &Metrics) {
    metrics.resets.inc();
    events.event(RESET, &reset_data(reason)).id(INCOMPLETE);
}
