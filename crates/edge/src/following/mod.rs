//! What the streams of every feed have in common: whether news arrives, resets, and the wait for a place that this edge
//! has not reached yet.

pub(crate) mod cursor_wait;
pub(crate) mod reset;
pub(crate) mod status;
