//! The feed's time between two calls to Redis. Even a quiet partition writes an empty record about once a second, which
//! sets this clock again, so it is never far from the clock of Redis.

use tokio::time::Instant;

/// Redis's time at one moment, carried forward by this machine's monotonic clock.
#[derive(Clone, Copy)]
pub(super) struct FeedClock {
    time_us: u64,
    read_at: Instant,
}

impl FeedClock {
    /// Starts the clock at a time that Redis has just told, in microseconds since 1970.
    pub(super) fn at(time_us: u64) -> Self {
        Self { time_us, read_at: Instant::now() }
    }

    /// Returns the time now, in milliseconds since 1970.
    pub(super) fn now_ms(self) -> i64 {
        (self.time_us / 1000) as i64 + self.read_at.elapsed().as_millis() as i64
    }
}
