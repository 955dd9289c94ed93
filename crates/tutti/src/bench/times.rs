//! When messages were sent on their way, and when they were heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Instant;

/// When each message was sent on its way, and when it was heard: nanoseconds since the start. 0 is never.
pub(super) struct Times {
    pub(super) began: Instant,
    /// When Kafka acknowledged the message.
    pub(super) acknowledged: Vec<AtomicU64>,
    pub(super) heard: Vec<AtomicU64>,
    /// The number of messages that streams received. A message to many streams counts once for each.
    pub(super) told: AtomicUsize,
    /// The number of streams that have received everything that they lacked.
    pub(super) live: AtomicUsize,
}

impl Times {
    pub(super) fn new(slots: usize) -> Arc<Self> {
        let zeros = || (0..slots).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self {
            began: Instant::now(),
            acknowledged: zeros(),
            heard: zeros(),
            told: AtomicUsize::new(0),
            live: AtomicUsize::new(0),
        })
    }

    pub(super) fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }
}
