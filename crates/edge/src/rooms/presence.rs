//! Reports to the waiting room's service which tickets have streams at this edge. A ticket without a stream at any edge
//! leaves the line after the grace period.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tonic::Code;
use tracing::debug;
use tutti_model::queue::PresenceRequest;
use uuid::Uuid;

use crate::rooms::client::Queue;

/// Time between two reports of what changed. A report without changes renews the lease of this edge.
const REPORT: Duration = Duration::from_secs(1);
/// Time between two reports of all tickets. They repair the effect of a call that was given up and arrived late, after
/// a newer one.
const ALL: Duration = Duration::from_secs(60);

/// The tickets of one room that have streams here.
#[derive(Default)]
pub(crate) struct Presence(Mutex<State>);

#[derive(Default)]
struct State {
    /// Number of streams by ticket. Tickets at zero are removed.
    streams: HashMap<u64, usize>,
    /// Tickets whose first stream opened since the last report.
    opened: BTreeSet<u64>,
    /// Tickets whose last stream closed since the last report.
    closed: BTreeSet<u64>,
    /// A report is on its way to the service.
    telling: bool,
}

/// Counts one stream of a ticket until it is dropped.
pub(crate) struct Present {
    presence: Arc<Presence>,
    ticket: u64,
}

impl Presence {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no ticket of the room has a stream here, and the service knows.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state();
        state.streams.is_empty() && state.closed.is_empty() && !state.telling
    }

    /// Returns the tickets to report, as those with streams and those without. Reports all tickets with streams if
    /// `all`, otherwise those that opened since the last report. Returns `None` if there is nothing to report, not even
    /// a sign of life.
    fn take(&self, all: bool) -> Option<(Vec<u64>, Vec<u64>)> {
        let mut state = self.state();
        let (opened, closed) = (std::mem::take(&mut state.opened), std::mem::take(&mut state.closed));
        if state.streams.is_empty() && closed.is_empty() {
            return None;
        }
        state.telling = true;
        if all {
            let here = state.streams.keys().copied().collect();
            // The service must learn from this edge that these streams have closed; it must not guess.
            return Some((here, closed.into_iter().collect()));
        }
        Some((opened.into_iter().collect(), closed.into_iter().collect()))
    }

    /// Notes that the report under way has ended.
    fn told(&self) {
        self.state().telling = false;
    }

    /// Adds changes to the next report, because they did not arrive. Leaves out those that no longer hold.
    fn put_back(&self, opened: Vec<u64>, closed: Vec<u64>) {
        let mut state = self.state();
        for ticket in opened {
            if state.streams.contains_key(&ticket) {
                state.opened.insert(ticket);
            }
        }
        for ticket in closed {
            if !state.streams.contains_key(&ticket) {
                state.closed.insert(ticket);
            }
        }
    }
}

impl Present {
    /// Counts one more stream of a ticket.
    pub(crate) fn new(presence: Arc<Presence>, ticket: u64) -> Self {
        let mut state = presence.state();
        let streams = state.streams.entry(ticket).or_default();
        *streams += 1;
        if *streams == 1 {
            state.closed.remove(&ticket);
            state.opened.insert(ticket);
        }
        drop(state);
        Self { presence, ticket }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let mut state = self.presence.state();
        let streams = state.streams.entry(self.ticket).or_default();
        *streams = streams.saturating_sub(1);
        if *streams == 0 {
            state.streams.remove(&self.ticket);
            state.opened.remove(&self.ticket);
            state.closed.insert(self.ticket);
        }
    }
}

/// Reports the tickets of one room that have streams here, for ever, under a name drawn for this room and edge.
pub(crate) async fn report(queue: &Queue, room: &str, presence: &Presence) -> Infallible {
    let edge = Uuid::from_u128(rand::random()).to_string();
    let mut reports = interval(REPORT);
    reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut all, mut all_at) = (true, Instant::now());
    loop {
        reports.tick().await;
        all |= all_at.elapsed() >= ALL;
        let Some((opened, closed)) = presence.take(all) else { continue };
        let request = PresenceRequest {
            room: room.to_owned(),
            edge: edge.clone(),
            all,
            opened: opened.clone(),
            closed: closed.clone(),
        };
        let ask = queue.ask(request, |mut q, request| async move { q.presence(request).await });
        match ask.await {
            Ok(answer) => {
                if all {
                    all_at = Instant::now();
                }
                all = !answer.known;
                if all {
                    presence.put_back(opened, closed);
                    reports.reset_immediately();
                }
            }
            // The room is gone, and all its tickets with it.
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => {
                debug!(
                    room,
                    why = status.message(),
                    "could not report to the waiting room's service which tickets have streams here; trying again"
                );
                presence.put_back(opened, closed);
            }
        }
        presence.told();
    }
}
