//! Tells the registry in Redis which users' devices are connected here.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;
use tutti_feed::ConnectionRegistry;

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
    here: HashMap<Who, Here>,
    /// Changed since Redis was told. Of those who are not here, only such as Redis may know.
    changed: HashSet<Who>,
    /// What Redis may or may not have been told: before all else, it is told anew.
    doubtful: Vec<Who>,
}

/// A device with streams here.
struct Here {
    streams: usize,
    /// Milliseconds since 1970.
    since_ms: i64,
    /// Whether Redis may know: then it must hear of the end, too.
    told: bool,
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
        // Who left before Redis heard so is known there.
        let told = !state.changed.insert(who.clone());
        let here = state.here.entry(who.clone()).or_insert(Here { streams: 0, since_ms: now_ms, told });
        here.streams += 1;
        drop(state);
        Connection { connections: self.clone(), who }
    }

    /// What is to be told: who came, who left.
    fn take(&self) -> (Vec<(String, String, i64)>, Vec<Who>) {
        let mut state = self.state();
        let mut those = std::mem::take(&mut state.doubtful);
        if those.is_empty() {
            those = state.changed.iter().take(AT_ONCE).cloned().collect();
        }
        let (mut came, mut left) = (Vec::new(), Vec::new());
        for who in those {
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

    fn put_back(&self, came: Vec<(String, String, i64)>, left: Vec<Who>) {
        let came = came.into_iter().map(|(user, device, _)| (user, device));
        let mut state = self.state();
        let State { changed, doubtful, .. } = &mut *state;
        *doubtful = came.chain(left).collect();
        changed.extend(doubtful.iter().cloned());
    }

    /// Redis may have lost something: all is to be told anew.
    fn tell_all(&self) {
        let mut state = self.state();
        let all: Vec<Who> = state.here.keys().cloned().collect();
        state.changed.extend(all);
    }

    /// Tells Redis, for ever.
    pub(crate) async fn run(
        self: Arc<Self>,
        registry: ConnectionRegistry,
        mut connection_epoch: watch::Receiver<u64>,
    ) {
        let mut ticks = interval(TELL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // An attempt that was not answered may have taken up what a later one would have said.
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
                        debug!(%error, "the lease is renewed later");
                    }
                }
            }
            let (came, left) = self.take();
            if let Err(error) = registry.update(&came, &left).await {
                debug!(%error, "connections are written down later");
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
        // What came and went before Redis heard of it leaves nothing behind, however much of it there is.
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
        // That it left was not told yet when it came back, and then nobody knows whether it was.
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
