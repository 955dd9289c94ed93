//! What a stream that is not up to date does next.

use tokio::time::Instant;
use tutti_sse::events::Events;

/// What a stream that is not up to date does next.
#[derive(Debug)]
pub(crate) enum NextWrite {
    /// It writes these events.
    Write(Events),
    /// It waits for the next step, until this time at most.
    Wait(Instant),
    /// It joins the streams that are up to date.
    Arrived,
}
