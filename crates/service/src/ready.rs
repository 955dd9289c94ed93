//! Readiness: a service is ready once everything that it waits for has come, and stays so until it
//! stops. A dependency that goes away later is no reason to take it out of the balance.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// What a service still waits for.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    awaited: BTreeSet<String>,
    stopping: bool,
}

/// One thing that is waited for; open it when it has come.
#[must_use = "a latch that is dropped unopened keeps the service from being ready"]
pub struct Latch {
    readiness: Readiness,
    name: String,
}

impl Readiness {
    /// Adds something to wait for, by a name that an operator understands.
    pub fn latch(&self, name: impl Into<String>) -> Latch {
        let name = name.into();
        self.state(|s| s.awaited.insert(name.clone()));
        Latch { readiness: self.clone(), name }
    }

    /// Not ready any more, for good: the service is stopping.
    pub fn stop(&self) {
        self.state(|s| s.stopping = true);
    }

    /// What it waits for; `Ok` if there is nothing left.
    ///
    /// # Errors
    /// The names of what is awaited, or that it is stopping.
    pub fn check(&self) -> Result<(), String> {
        self.state(|s| match (s.stopping, s.awaited.is_empty()) {
            (true, _) => Err("stopping".to_owned()),
            (false, true) => Ok(()),
            (false, false) => {
                let names: Vec<&str> = s.awaited.iter().map(String::as_str).collect();
                Err(format!("waiting for {}", names.join(", ")))
            }
        })
    }

    fn state<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Latch {
    /// It has come.
    pub fn open(self) {
        self.readiness.state(|s| s.awaited.remove(&self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_all_latches_are_open_and_not_after_stopping() {
        let readiness = Readiness::default();
        let (kafka, redis) = (readiness.latch("kafka"), readiness.latch("redis"));
        assert_eq!(readiness.check().unwrap_err(), "waiting for kafka, redis");
        kafka.open();
        assert_eq!(readiness.check().unwrap_err(), "waiting for redis");
        redis.open();
        assert_eq!(readiness.check(), Ok(()));
        readiness.stop();
        assert_eq!(readiness.check().unwrap_err(), "stopping");
    }

    #[test]
    fn a_latch_that_is_dropped_unopened_keeps_it_closed() {
        let readiness = Readiness::default();
        drop(readiness.latch("kafka"));
        assert!(readiness.check().is_err());
    }
}
