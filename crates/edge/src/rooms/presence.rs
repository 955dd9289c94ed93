//! Tells the waiting room's service whose streams this edge has: who has none anywhere for the grace
//! period leaves the line.

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
use crate::rooms::follower::RoomFeed;

/// Changes go out once in this time, and so does a sign of life.
const REPORT: Duration = Duration::from_secs(1);
/// All is told anew so often: a call that was given up may have arrived late, after a newer one.
const ALL: Duration = Duration::from_secs(60);

/// The tickets of one room that have streams here.
#[derive(Default)]
pub(crate) struct Presence(Mutex<State>);

#[derive(Default)]
struct State {
    streams: HashMap<u64, usize>,
    /// Changed since the service was told.
    opened: BTreeSet<u64>,
    closed: BTreeSet<u64>,
    /// Changes are on their way to the service.
    telling: bool,
}

/// One stream of a ticket, for as long as this is kept.
pub(crate) struct Present {
    room: Arc<RoomFeed>,
    ticket: u64,
}

impl Presence {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is no stream here, and the service knows.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state();
        state.streams.is_empty() && state.closed.is_empty() && !state.telling
    }

    /// What is to be told: all, or what changed. `None` if there is nothing to say at all.
    fn take(&self, all: bool) -> Option<(Vec<u64>, Vec<u64>)> {
        let mut state = self.state();
        let (opened, closed) = (std::mem::take(&mut state.opened), std::mem::take(&mut state.closed));
        if state.streams.is_empty() && closed.is_empty() {
            return None;
        }
        state.telling = true;
        if all {
            let here = state.streams.keys().copied().collect();
            // They had a stream a moment ago: the service is to hear it from us, not to guess.
            return Some((here, closed.into_iter().collect()));
        }
        Some((opened.into_iter().collect(), closed.into_iter().collect()))
    }

    /// The service has answered.
    fn told(&self) {
        self.state().telling = false;
    }

    /// Those changes did not arrive.
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
    pub(crate) fn new(room: Arc<RoomFeed>, ticket: u64) -> Self {
        let mut state = room.presence.state();
        let streams = state.streams.entry(ticket).or_default();
        *streams += 1;
        if *streams == 1 {
            state.closed.remove(&ticket);
            state.opened.insert(ticket);
        }
        drop(state);
        Self { room, ticket }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let mut state = self.room.presence.state();
        let streams = state.streams.entry(self.ticket).or_default();
        *streams = streams.saturating_sub(1);
        if *streams == 0 {
            state.streams.remove(&self.ticket);
            state.opened.remove(&self.ticket);
            state.closed.insert(self.ticket);
        }
    }
}

/// Reports for ever.
pub(crate) async fn report(queue: &Queue, room: &RoomFeed) -> Infallible {
    let edge = Uuid::from_u128(rand::random()).to_string();
    let mut reports = interval(REPORT);
    reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut all, mut all_at) = (true, Instant::now());
    loop {
        reports.tick().await;
        all |= all_at.elapsed() >= ALL;
        let Some((opened, closed)) = room.presence.take(all) else { continue };
        let request = PresenceRequest {
            room: room.name.to_string(),
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
                    room.presence.put_back(opened, closed);
                    reports.reset_immediately();
                }
            }
            // The room is gone, and whoever was in it.
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => {
                debug!(
                    room = &*room.name,
                    why = status.message(),
                    "whose streams are here could not be told"
                );
                room.presence.put_back(opened, closed);
            }
        }
        room.presence.told();
    }
}
