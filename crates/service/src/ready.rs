//! Readiness. A service is ready once everything that it waits for has come, until it stops. A dependency that goes
//! away later is no reason for a load balancer to leave the service out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What a service waits for. Cheap to clone.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// What is awaited, by name, with the reason why it has not come if that is known.
    awaited: BTreeMap<String, Option<String>>,
    stopping: bool,
}

/// One thing that a service waits for. It is opened once the thing has come.
#[must_use = "a latch that is dropped unopened keeps the service from being ready"]
pub struct Latch {
    readiness: Readiness,
    name: String,
}

impl Readiness {
    /// Adds something to wait for, under a name that an operator understands.
    pub fn latch(&self, name: impl Into<String>) -> Latch {
        let name = name.into();
        self.state(|s| s.awaited.insert(name.clone(), None));
        Latch { readiness: self.clone(), name }
    }

    /// Ends readiness for good, because the service stops.
    pub fn stop(&self) {
        self.state(|s| s.stopping = true);
    }

    /// Checks that nothing is awaited any more.
    ///
    /// # Errors
    /// A text that names what is awaited, with the reasons that are known, or says that the service is stopping.
    pub fn check(&self) -> Result<(), String> {
        self.state(|s| match (s.stopping, s.awaited.is_empty()) {
            (true, _) => Err("stopping".to_owned()),
            (false, true) => Ok(()),
            (false, false) => {
                let awaited = s.awaited.iter().map(|(name, reason)| match reason {
                    Some(reason) => format!("{name} ({reason})"),
                    None => name.clone(),
                });
                Err(format!("waiting for {}", awaited.collect::<Vec<_>>().join(", ")))
            }
        })
    }

    fn state<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Latch {
    /// Notes why the thing has not come yet. `/ready` shows the last reason.
    pub fn because(&self, reason: &str) {
        self.readiness.state(|s| {
            if let Some(last) = s.awaited.get_mut(&self.name) {
                *last = Some(reason.to_owned());
            }
        });
    }

    /// Opens the latch: the thing has come.
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
        redis.because("it loads");
        redis.because("wrong password");
        assert_eq!(readiness.check().unwrap_err(), "waiting for kafka, redis (wrong password)");
        kafka.open();
        assert_eq!(readiness.check().unwrap_err(), "waiting for redis (wrong password)");
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
