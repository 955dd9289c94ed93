//! What the simulation counts while it runs.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The counters of a run. Other tasks may read them at any time.
#[derive(Debug, Default)]
pub struct Figures {
    /// Devices with a stream open now.
    pub devices: AtomicU64,
    /// Notifications that were sent and answered.
    pub sent: AtomicU64,
    /// Notifications that reached a device for the first time.
    pub delivered: AtomicU64,
    /// Notifications that reached a device again without a reset before.
    pub duplicates: AtomicU64,
    /// Notifications that were marked as read.
    pub marked: AtomicU64,
    /// `reset` events.
    pub resets: AtomicU64,
    /// Streams that broke off or did not open.
    pub reconnects: AtomicU64,
    /// Requests that had to be made again.
    pub again: AtomicU64,
    delays_us: Mutex<Vec<i64>>,
}

impl Figures {
    /// Returns the delays of the deliveries from number `from` on, in their order: microseconds from the answer to a send
    /// until a device had the notification. A delay is 0 where the device was first.
    pub fn delays_us(&self, from: usize) -> Vec<i64> {
        self.delays().get(from..).unwrap_or_default().to_vec()
    }

    /// Adds the delay of a delivery.
    pub(super) fn add_delay(&self, delay: Duration) {
        self.delays().push(delay.as_micros() as i64);
    }

    fn delays(&self) -> MutexGuard<'_, Vec<i64>> {
        self.delays_us.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
