//! Resets, by which a client learns that what it was shown is void and that what follows replaces it.

use tutti_sse::events::Events;

use crate::metrics::Metrics;
use tutti_model::events::{RESET, ResetReason, reset_data};

/// The id of a client that has received only a part of what follows a reset. A client that comes back with it must
/// forget that part, because what was removed meanwhile is not in the next snapshot.
pub(crate) const INCOMPLETE: &str = "0";

/// Appends the event `reset` with the id [`INCOMPLETE`], and counts it.
pub(crate) fn write_reset(reason: ResetReason, events: &mut Events, metrics: &Metrics) {
    metrics.resets.inc();
    events.event(RESET, &reset_data(reason)).id(INCOMPLETE);
}
