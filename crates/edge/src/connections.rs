//! Tells the registry in Redis which users' devices are connected here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;
use tutti_feed::Registry;

/// What changed is told so often.
const TELL: Duration = Duration::from_secs(1);
/// The server's own lease is renewed so often, in the same unit.
const RENEW_EVERY: u32 = 5;

/// Changes told at once, less than the driver's queue holds; what is more waits for the next time.
const AT_ONCE: usize = 5000;

/// A user and one of her devices.
type Who = (String, String);

/// The devices with streams here.
#[derive(Default)]
pub(crate) struct Connections(Mutex<State>);

#[derive(Default)]
struct State {
    /// How many streams a device has, and since when (milliseconds since 1970).
    here: HashMap<Who, (usize, i64)>,
    /// Changed since Redis was told.
    changed: std::collections::HashSet<Who>,
}

/// One stream of a device, for as long as this is kept.
pub(crate) struct Connection {
    connections: Arc<Connections>,
    who: Who,
}

impl Connections {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream of a device has begun, at this time.
    pub(crate) fn connect(self: &Arc<Self>, user: &str, device: &str, now_ms: i64) -> Connection {
        let who = (user.to_owned(), device.to_owned());
        let mut state = self.state();
        let entry = state.here.entry(who.clone()).or_insert((0, now_ms));
        entry.0 += 1;
        state.changed.insert(who.clone());
        drop(state);
        Connection { connections: self.clone(), who }
    }

    /// What is to be told: who came, who left.
    fn take(&self) -> (Vec<(String, String, i64)>, Vec<Who>) {
        let mut state = self.state();
        let changed = std::mem::take(&mut state.changed);
        let (mut came, mut left) = (Vec::new(), Vec::new());
        for who in changed {
            if came.len() + left.len() >= AT_ONCE {
                state.changed.insert(who);
                continue;
            }
            match state.here.get(&who) {
                Some((_, since_ms)) => came.push((who.0, who.1, *since_ms)),
                None => left.push(who),
            }
        }
        (came, left)
    }

    fn put_back(&self, came: Vec<(String, String, i64)>, left: Vec<Who>) {
        let came = came.into_iter().map(|(user, device, _)| (user, device));
        self.state().changed.extend(came.chain(left));
    }

    /// Redis may have lost something: all is to be told anew.
    fn tell_all(&self) {
        let mut state = self.state();
        let all: Vec<Who> = state.here.keys().cloned().collect();
        state.changed.extend(all);
    }

    /// Tells Redis, for ever.
    pub(crate) async fn run(self: Arc<Self>, registry: Registry, mut connects: watch::Receiver<u64>) {
        let mut ticks = interval(TELL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // An attempt that was not answered may have taken up what a later one would have said.
        let mut doubted = false;
        for tick in 0u32.. {
            ticks.tick().await;
            if connects.has_changed().unwrap_or(false) {
                connects.mark_unchanged();
                self.tell_all();
            }
            if tick % RENEW_EVERY == 0 {
                match registry.renew().await {
                    Ok(was_dead) => {
                        if was_dead || std::mem::take(&mut doubted) {
                            self.tell_all();
                        }
                    }
                    Err(error) => {
                        doubted = true;
                        debug!(%error, "the lease is renewed later");
                    }
                }
            }
            let (came, left) = self.take();
            if let Err(error) = registry.tell(&came, &left).await {
                debug!(%error, "connections are written down later");
                self.put_back(came, left);
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut state = self.connections.state();
        if let Some(entry) = state.here.get_mut(&self.who) {
            entry.0 -= 1;
            if entry.0 == 0 {
                state.here.remove(&self.who);
                state.changed.insert(self.who.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_there_until_its_last_stream_ends() {
        let connections = Arc::new(Connections::default());
        let first = connections.connect("7", "phone", 10);
        let second = connections.connect("7", "phone", 20);
        assert_eq!(connections.take(), (vec![("7".into(), "phone".into(), 10)], vec![]));
        drop(first);
        assert_eq!(connections.take(), (vec![], vec![]));
        drop(second);
        let left = vec![("7".to_owned(), "phone".to_owned())];
        assert_eq!(connections.take(), (vec![], left.clone()));
        connections.put_back(vec![], left.clone());
        assert_eq!(connections.take(), (vec![], left));
        let _again = connections.connect("7", "phone", 30);
        connections.take();
        connections.tell_all();
        assert_eq!(connections.take().0.len(), 1);
    }
}
