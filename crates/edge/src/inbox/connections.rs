//! Reports to the registry in Redis which devices of users are connected to this edge.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;
use tutti_feed::ConnectionRegistry;

/// Time between two reports of what changed.
const TELL: Duration = Duration::from_secs(1);
/// Number of reports between two renewals of the lease of this edge.
const RENEW_EVERY: u32 = 5;

/// Largest number of changes in one report, less than the queue of the Redis driver holds. The others wait for the next
/// report.
const AT_ONCE: usize = 5000;

/// A user and a device of that user.
type Who = (String, String);

/// The devices with streams at this edge.
#[derive(Default)]
pub(crate) struct Connections(Mutex<State>);

#[derive(Default)]
struct State {
    /// The devices with streams here.
    here: HashMap<Who, Here>,
    /// Devices that came or left since the last report. A device that left is in it only if Redis may know the device.
    changed: HashSet<Who>,
    /// Devices of a report that failed, of which Redis may know or not. They are reported again before all others.
    doubtful: Vec<Who>,
}

/// A device with streams here.
struct Here {
    /// Number of streams.
    streams: usize,
    /// When the first stream began, in milliseconds since 1970.
    since_ms: i64,
    /// Whether Redis may know the device. The end must be reported then, too.
    told: bool,
}

/// Counts one stream of a device until it is dropped.
pub(crate) struct Connection {
    connections: Arc<Connections>,
    who: Who,
}

impl Connections {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more stream of a device, which began at `now_ms` (milliseconds since 1970).
    pub(crate) fn connect(self: &Arc<Self>, user: &str, device: &str, now_ms: i64) -> Connection {
        let who = (user.to_owned(), device.to_owned());
        let mut state = self.state();
        // A device that left, but whose end was not reported yet, is known to Redis.
        let told = !state.changed.insert(who.clone());
        let here = state.here.entry(who.clone()).or_insert(Here { streams: 0, since_ms: now_ms, told });
        here.streams += 1;
        drop(state);
        Connection { connections: self.clone(), who }
    }

    /// Returns the devices of the next report: those that came, with the time since when, and those that left.
    fn take(&self) -> (Vec<(String, String, i64)>, Vec<Who>) {
        let mut state = self.state();
        let mut reported = std::mem::take(&mut state.doubtful);
        if reported.is_empty() {
            reported = state.changed.iter().take(AT_ONCE).cloned().collect();
        }
        let (mut came, mut left) = (Vec::new(), Vec::new());
        for who in reported {
            state.changed.remove(&who);
            match state.here.get_mut(&who) {
                Some(here) => {
                    here.told = true;
                    came.push((who.0, who.1, here.since_ms));
                }
                None => left.push(who),
            }
        }
        (came, left)
    }

    /// Has the next report repeat the devices of a report that failed, before all others.
    fn put_back(&self, came: Vec<(String, String, i64)>, left: Vec<Who>) {
        let came = came.into_iter().map(|(user, device, _)| (user, device));
        let mut state = self.state();
        let State { changed, doubtful, .. } = &mut *state;
        *doubtful = came.chain(left).collect();
        changed.extend(doubtful.iter().cloned());
    }

    /// Has the next reports repeat all devices, because Redis may have lost some.
    fn tell_all(&self) {
        let mut state = self.state();
        let all: Vec<Who> = state.here.keys().cloned().collect();
        state.changed.extend(all);
    }

    /// Reports to the registry and renews the lease of this edge, for ever. A change of `connection_epoch` says that
    /// Redis was connected to again, so all devices are reported.
    pub(crate) async fn run(
        self: Arc<Self>,
        registry: ConnectionRegistry,
        mut connection_epoch: watch::Receiver<u64>,
    ) {
        let mut ticks = interval(TELL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A renewal that was not answered may have received the news that the lease had ended. All is reported after
        // it.
        let mut doubted = false;
        for tick in 0u32.. {
            ticks.tick().await;
            if connection_epoch.has_changed().unwrap_or(false) {
                connection_epoch.mark_unchanged();
                self.tell_all();
            }
            if tick % RENEW_EVERY == 0 {
                match registry.renew_lease().await {
                    Ok(was_dead) => {
                        if was_dead || std::mem::take(&mut doubted) {
                            self.tell_all();
                        }
                    }
                    Err(error) => {
                        doubted = true;
                        debug!(%error, "could not renew the lease of this edge in the registry; trying again");
                    }
                }
            }
            let (came, left) = self.take();
            if let Err(error) = registry.update(&came, &left).await {
                debug!(%error, "could not write connections to the registry; trying again");
                self.put_back(came, left);
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut state = self.connections.state();
        let Some(here) = state.here.get_mut(&self.who) else { return };
        here.streams -= 1;
        if here.streams > 0 {
            return;
        }
        // Devices that came and left between two reports leave nothing behind, however many there are.
        if state.here.remove(&self.who).is_some_and(|here| here.told) {
            state.changed.insert(self.who.clone());
        } else {
            state.changed.remove(&self.who);
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

    #[test]
    fn who_is_gone_before_redis_heard_of_it_is_forgotten_unless_redis_may_know() {
        let connections = Arc::new(Connections::default());
        let comes_and_goes = || drop(connections.connect("7", "phone", 10));
        comes_and_goes();
        assert!(connections.state().changed.is_empty());
        let first = connections.connect("7", "phone", 20);
        connections.take();
        drop(first);
        // The device came back before its end was reported; then that report fails, so Redis may know it or not.
        comes_and_goes();
        let (came, left) = connections.take();
        assert_eq!((came.len(), left.len()), (0, 1));
        connections.put_back(came, left);
        comes_and_goes();
        let others: Vec<_> = (0..9).map(|n| connections.connect("8", &n.to_string(), 30)).collect();
        assert_eq!(connections.take().1.len(), 1, "before all else");
        drop(others);
        assert!(connections.state().changed.is_empty());
    }
}
