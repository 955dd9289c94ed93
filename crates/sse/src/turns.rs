//! Turns at costly work, given out fairly: the owners of those that wait get a turn each, one owner after the
//! other, so that an owner with many requests does not delay an owner with one. Within an owner, whoever came
//! first is first.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::oneshot;

use crate::limits::Owner;

/// A number of turns. Clones share them, on any thread.
#[derive(Clone)]
pub struct Turns(Arc<Queue>);

/// One turn. Dropping it passes the turn on.
pub struct Turn(Option<Arc<Queue>>);

struct Queue {
    state: Mutex<State>,
    /// Metric: the number of waiters.
    waiting: Gauge,
}

struct State {
    /// Turns that are free. While there are any, nobody waits.
    free: usize,
    /// The owners of the waiters, each once, in the order of their next turns.
    owners: VecDeque<Owner>,
    /// The waiters by owner. Owners without any are removed.
    waiting: HashMap<Owner, VecDeque<Waiter>>,
    /// The number of the next waiter.
    next: u64,
}

struct Waiter {
    number: u64,
    grant: oneshot::Sender<Turn>,
}

impl Turns {
    /// At most `at_once` turns are taken at the same time; `waiting` counts the requests that wait for one.
    pub fn new(at_once: usize, waiting: Gauge) -> Self {
        let (owners, waiters) = (VecDeque::new(), HashMap::new());
        let state = State { free: at_once, owners, waiting: waiters, next: 0 };
        Self(Arc::new(Queue { state: Mutex::new(state), waiting }))
    }

    /// Waits for a turn. The queue is as long as there are callers: bound those.
    pub async fn take(&self, owner: Owner) -> Turn {
        let (grant, granted) = oneshot::channel();
        let number = {
            let mut state = self.0.state();
            if state.free > 0 {
                state.free -= 1;
                return Turn(Some(self.0.clone()));
            }
            let number = state.next;
            state.next += 1;
            let waiters = state.waiting.entry(owner.clone()).or_default();
            waiters.push_back(Waiter { number, grant });
            if waiters.len() == 1 {
                state.owners.push_back(owner.clone());
            }
            number
        };
        let _place = Place::new(&self.0, &owner, number);
        granted.await.expect("a waiter is dropped by itself alone")
    }

    /// Requests of an owner that wait for a turn.
    pub fn waiting_of(&self, owner: &Owner) -> usize {
        self.0.state().waiting.get(owner).map_or(0, VecDeque::len)
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the waiter that gets the next turn. If nobody waits, the turn is free.
    fn next(&self) -> Option<oneshot::Sender<Turn>> {
        let mut state = self.state();
        let next = state.owners.pop_front().and_then(|owner| {
            let waiters = state.waiting.get_mut(&owner)?;
            let next = waiters.pop_front();
            if waiters.is_empty() {
                state.waiting.remove(&owner);
            } else {
                state.owners.push_back(owner);
            }
            next
        });
        if next.is_none() {
            state.free += 1;
        }
        next.map(|waiter| waiter.grant)
    }

    /// Removes a waiter that gives up, unless it has been given a turn.
    fn give_up(&self, owner: &Owner, number: u64) {
        let mut state = self.state();
        let Some(waiters) = state.waiting.get_mut(owner) else { return };
        waiters.retain(|waiter| waiter.number != number);
        if waiters.is_empty() {
            state.waiting.remove(owner);
            state.owners.retain(|other| other != owner);
        }
    }
}

/// Passes the turn on.
impl Drop for Turn {
    fn drop(&mut self) {
        let Some(queue) = self.0.take() else { return };
        while let Some(next) = queue.next() {
            match next.send(Self(Some(queue.clone()))) {
                Ok(()) => return,
                // That waiter was giving up just now.
                Err(mut unused) => unused.0 = None,
            }
        }
    }
}

/// A waiter's place in the queue, which it leaves with a turn or without.
struct Place<'a> {
    queue: &'a Queue,
    owner: &'a Owner,
    number: u64,
}

impl<'a> Place<'a> {
    fn new(queue: &'a Queue, owner: &'a Owner, number: u64) -> Self {
        queue.waiting.inc();
        Self { queue, owner, number }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.queue.waiting.dec();
        self.queue.give_up(self.owner, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::net::IpAddr;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    fn address(n: u8) -> Owner {
        Owner::Address(IpAddr::from([192, 0, 2, n]))
    }

    type Waiting<'a> = Pin<Box<dyn Future<Output = Turn> + 'a>>;

    /// Asks for a turn of each of these owners, in order; each is given with its owner.
    fn ask<'a>(turns: &'a Turns, owners: &[u8]) -> Vec<(u8, Waiting<'a>)> {
        let asked = owners.iter().map(|owner| {
            let mut waiting: Waiting<'a> = Box::pin(turns.take(address(*owner)));
            assert!(poll(&mut waiting).is_none());
            (*owner, waiting)
        });
        asked.collect()
    }

    fn poll(waiting: &mut Waiting<'_>) -> Option<Turn> {
        match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    /// The owners in the order in which they get the one turn, which each gives back at once.
    fn served(first: Turn, mut waiting: Vec<(u8, Waiting<'_>)>) -> Vec<u8> {
        let mut order = Vec::new();
        let mut turn = Some(first);
        while turn.take().is_some() {
            let next =
                waiting.iter_mut().enumerate().find_map(|(at, (_, waiting))| Some((at, poll(waiting)?)));
            turn = next.map(|(at, turn)| {
                order.push(waiting.remove(at).0);
                turn
            });
        }
        assert!(waiting.is_empty(), "all are served");
        order
    }

    fn free_turn(turns: &Turns) -> Turn {
        poll(&mut (Box::pin(turns.take(address(0))) as Waiting<'_>)).expect("a turn is free")
    }

    #[test]
    fn owners_get_one_turn_after_the_other_however_many_requests_each_has() {
        let turns = Turns::new(1, Gauge::default());
        let first = free_turn(&turns);
        let waiting = ask(&turns, &[1, 1, 1, 1, 2, 1, 3, 2]);
        assert_eq!(served(first, waiting), [1, 2, 3, 1, 2, 1, 1, 1]);
        drop(free_turn(&turns));
    }

    #[test]
    fn those_that_give_up_are_forgotten_and_delay_nobody() {
        let waiting_metric = Gauge::<i64>::default();
        let turns = Turns::new(1, waiting_metric.clone());
        let first = free_turn(&turns);
        let mut waiting = ask(&turns, &[1, 1, 2, 1, 3]);
        assert_eq!((waiting_metric.get(), turns.waiting_of(&address(1))), (5, 3));
        drop(waiting.remove(4));
        drop(waiting.remove(0));
        assert_eq!((waiting_metric.get(), turns.waiting_of(&address(1))), (3, 2));
        assert_eq!(served(first, waiting), [1, 2, 1]);
        assert_eq!(waiting_metric.get(), 0);
        let state = turns.0.state();
        assert!(state.free == 1 && state.owners.is_empty() && state.waiting.is_empty());
    }

    #[test]
    fn a_turn_that_is_not_taken_is_passed_on() {
        let turns = Turns::new(1, Gauge::default());
        let first = free_turn(&turns);
        let mut waiting = ask(&turns, &[1, 2]);
        drop(first);
        drop(waiting.remove(0)); // it has the turn by now, without having seen it
        assert!(poll(&mut waiting[0].1).is_some());
    }

    #[test]
    fn as_many_have_a_turn_at_once_as_there_are_turns() {
        let turns = Turns::new(2, Gauge::default());
        let (first, _second) = (free_turn(&turns), free_turn(&turns));
        let mut waiting = ask(&turns, &[1, 1]);
        drop(first);
        let taken: Vec<_> = waiting.iter_mut().filter_map(|(_, waiting)| poll(waiting)).collect();
        assert_eq!(taken.len(), 1);
    }
}
