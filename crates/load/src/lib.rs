//! Load for Tutti, and what measures it: simulators that write to Kafka, a crowd before a waiting
//! room, users' devices and their inboxes, the replay of recorded positions, and a client that reads
//! streams as a browser does.

pub mod city;
pub mod crowd;
pub mod inbox;
pub mod publisher;
mod retry;
pub mod sse;
pub mod taxis;
pub mod watch;

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, by this host's clock.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
