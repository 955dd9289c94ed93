//! The bytes of all copies of the map that clients are receiving, and their limit.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::{Copied, Metrics};

/// Maximum bytes of all copies that clients are receiving at the same time.
pub(crate) const MAX_BYTES: usize = 256 << 20;

/// Counts the bytes of copies for as long as anything holds them. Clones share the count, on any thread.
#[derive(Clone)]
pub(crate) struct CopyBytes {
    /// Bytes that further copies may have.
    bytes: Arc<Semaphore>,
    metrics: Metrics,
}

/// The bytes of a copy, which are counted until they are dropped.
struct Permit {
    bytes: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Permit {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl CopyBytes {
    /// No copies are held yet.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self { bytes: Arc::new(Semaphore::new(MAX_BYTES)), metrics: metrics.clone() }
    }

    /// Calls `make`, which returns about `max_bytes` at most, and counts its bytes until they are dropped. Returns
    /// `None` without calling `make` if the copies that are held leave no room for `max_bytes`.
    pub(crate) fn acquire(
        &self,
        part: &'static str,
        max_bytes: usize,
        make: impl FnOnce() -> Vec<u8>,
    ) -> Option<Bytes> {
        // A copy that is larger than the limit of all copies is made if there is no other.
        let mut permit = self.bytes.clone().try_acquire_many_owned(max_bytes.min(MAX_BYTES) as u32).ok()?;
        self.metrics.map_copies.get_or_create(&Copied { part }).inc();
        let bytes = make();
        if let Some(spare) = permit.num_permits().checked_sub(bytes.len()) {
            drop(permit.split(spare));
        }
        Some(Bytes::from_owner(Permit { bytes, _permit: permit }))
    }

    /// Returns how many bytes further copies may have.
    #[cfg(test)]
    pub(crate) fn available(&self) -> usize {
        self.bytes.available_permits()
    }
}
