//! Load for Tutti, and what measures it.
//!
//! [`taxis`] replays recorded positions, and [`city`] simulates devices; both write to Kafka with a [`publisher`].
//! [`crowd`] simulates people in front of a waiting room, and [`inbox`] users with their devices; both talk to edges,
//! and repeat requests that fail. [`sse`] reads a stream as a browser does, and [`watch`] holds what a viewer of the
//! map would.

pub mod city;
pub mod crowd;
pub mod inbox;
pub mod publisher;
mod retry;
pub mod sse;
pub mod taxis;
pub mod watch;

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the time of this host in milliseconds since 1970.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
