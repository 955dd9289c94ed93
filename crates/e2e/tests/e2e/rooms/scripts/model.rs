//! A model of the waiting room, in plain Rust.

use std::collections::{BTreeMap, BTreeSet};

use tutti_model::{GoneReason, Mode, RoomSettings, lottery};
use tutti_queue::rooms::{Refusal, TicketAction, TicketStatus};

use super::{LEASE, SECOND, SEED, START};

#[derive(Clone, Debug)]
pub(super) struct Visitor {
    pub(super) state: TicketStatus,
    deadline: u64,
    seen: u64,
    /// The second of room time at which the model checks whether the visitor is away.
    look_at: Option<u64>,
}

/// The model of the waiting room.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) clock: u64,
    at: u64,
    now: u64,
    credit: f64,
    swept: u64,
    pub(super) settings: RoomSettings,
    pub(super) mode: Mode,
    pub(super) opened: bool,
    early: u64,
    pub(super) visitors: Vec<Visitor>,
    pub(super) keys: BTreeMap<u8, u64>,
    /// The lease and the tickets of each edge.
    edges: BTreeMap<usize, (u64, BTreeSet<u64>)>,
    pub(super) counts: BTreeMap<&'static str, u64>,
    /// The tickets in the order of their admissions.
    pub(super) admitted: Vec<u64>,
}

impl Model {
    pub(super) fn new(settings: RoomSettings, opened: bool) -> Self {
        let credit = (settings.admit_per_second / 4.0).max(1.0);
        Self {
            clock: START,
            at: START,
            now: 0,
            credit,
            swept: 0,
            settings,
            mode: Mode::Open,
            opened,
            early: 0,
            visitors: Vec::new(),
            keys: BTreeMap::new(),
            edges: BTreeMap::new(),
            counts: BTreeMap::new(),
            admitted: Vec::new(),
        }
    }

    fn advance(&mut self) {
        let passed = (self.clock - self.at).min(2 * SECOND);
        let rate = self.settings.admit_per_second;
        self.at = self.clock;
        self.now += passed;
        self.credit = (rate / 4.0).max(1.0).min(self.credit + rate * passed as f64 / 1_000_000.0);
    }

    fn visitor(&mut self, n: u64) -> &mut Visitor {
        &mut self.visitors[n as usize - 1]
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn those(&self, wanted: impl Fn(TicketStatus) -> bool) -> Vec<u64> {
        (1..=self.visitors.len() as u64).filter(|n| wanted(self.visitors[*n as usize - 1].state)).collect()
    }

    pub(super) fn waiting(&self) -> Vec<u64> {
        self.those(|state| state == TicketStatus::Waiting)
    }

    pub(super) fn inside(&self) -> Vec<u64> {
        self.those(|state| matches!(state, TicketStatus::Admitted | TicketStatus::Claimed))
    }

    pub(super) fn place(&self, n: u64) -> u64 {
        lottery::place_of(n, self.early, SEED)
    }

    /// Returns the position, from 1. It is 0 for a ticket without one.
    pub(super) fn position(&self, n: u64) -> u64 {
        if !self.opened || self.visitors[n as usize - 1].state != TicketStatus::Waiting {
            return 0;
        }
        self.waiting().iter().filter(|other| self.place(**other) <= self.place(n)).count() as u64
    }

    fn is_present(&self, n: u64) -> bool {
        self.edges.values().any(|(lease, tickets)| *lease > self.now && tickets.contains(&n))
    }

    fn look_later(&mut self, n: u64) {
        let (grace, swept) = (self.settings.grace_seconds * SECOND, self.swept);
        let visitor = self.visitor(n);
        visitor.look_at = Some(((visitor.seen + grace) / SECOND + 1).max(swept + 1));
    }

    fn go(&mut self, n: u64, reason: GoneReason) {
        self.visitor(n).state = TicketStatus::Gone(reason);
        self.count(match reason {
            GoneReason::NoShow => "no_shows",
            GoneReason::SessionOver => "expired",
            GoneReason::Away => "away",
            _ => "left",
        });
    }

    fn admit(&mut self) {
        while self.opened && matches!(self.mode, Mode::Open | Mode::Draining) {
            let next = self.waiting().into_iter().min_by_key(|n| self.place(*n));
            let Some(next) = next else { return };
            if self.inside().len() as u64 >= self.settings.max_active || self.credit < 1.0 {
                return;
            }
            self.credit -= 1.0;
            let deadline = self.now + self.settings.claim_seconds * SECOND;
            let visitor = self.visitor(next);
            (visitor.state, visitor.deadline) = (TicketStatus::Admitted, deadline);
            self.admitted.push(next);
            self.count("admitted");
        }
    }

    pub(super) fn join(&mut self, key: u8) -> Result<u64, Refusal> {
        if let Some(n) = self.keys.get(&key) {
            let n = *n;
            self.advance();
            if self.visitor(n).state == TicketStatus::Waiting {
                self.seen(n);
            }
            return Ok(n);
        }
        if self.mode == Mode::Draining {
            return Err(Refusal::Draining);
        }
        self.advance();
        self.visitors.push(Visitor {
            state: TicketStatus::Waiting,
            deadline: 0,
            seen: self.now,
            look_at: None,
        });
        let n = self.visitors.len() as u64;
        self.keys.insert(key, n);
        self.look_later(n);
        self.admit();
        Ok(n)
    }

    pub(super) fn act(&mut self, action: TicketAction, n: u64) -> Result<u64, Refusal> {
        match (action, self.visitor(n).state) {
            (TicketAction::Claim | TicketAction::Renew, TicketStatus::Gone(_)) => return Err(Refusal::Gone),
            (TicketAction::Claim | TicketAction::Renew, TicketStatus::Waiting) => {
                return Err(Refusal::NotAdmitted);
            }
            _ => self.advance(),
        }
        let session = self.now + self.settings.session_seconds * SECOND;
        match (action, self.visitor(n).state) {
            (TicketAction::Claim | TicketAction::Renew, TicketStatus::Admitted) => {
                let visitor = self.visitor(n);
                (visitor.state, visitor.deadline) = (TicketStatus::Claimed, session);
                self.count("claimed");
            }
            (TicketAction::Renew, TicketStatus::Claimed) => self.visitor(n).deadline = session,
            (TicketAction::Get, TicketStatus::Waiting) => self.seen(n),
            (TicketAction::Leave, TicketStatus::Waiting) => self.go(n, GoneReason::Left),
            (TicketAction::Leave, TicketStatus::Admitted | TicketStatus::Claimed) => {
                self.go(n, GoneReason::Released);
            }
            _ => {}
        }
        Ok(n)
    }

    fn seen(&mut self, n: u64) {
        let now = self.now;
        self.visitor(n).seen = now;
        if self.visitor(n).look_at.is_none() && !self.is_present(n) {
            self.look_later(n);
        }
    }

    pub(super) fn remove(&mut self, n: u64) {
        self.advance();
        if !matches!(self.visitor(n).state, TicketStatus::Gone(_)) {
            self.go(n, GoneReason::Removed);
        }
    }

    pub(super) fn tick(&mut self) {
        self.advance();
        if !self.opened && self.at >= self.settings.opens_at_ms * 1000 {
            (self.opened, self.early) = (true, self.visitors.len() as u64);
        }
        for n in self.inside() {
            if self.visitor(n).deadline <= self.now {
                let was = self.visitor(n).state;
                let reason =
                    if was == TicketStatus::Admitted { GoneReason::NoShow } else { GoneReason::SessionOver };
                self.go(n, reason);
            }
        }
        let now = self.now;
        let lost: Vec<usize> =
            self.edges.iter().filter(|(_, (lease, _))| *lease <= now).map(|(edge, _)| *edge).collect();
        for edge in lost {
            let (_, tickets) = self.edges.remove(&edge).unwrap();
            for n in tickets {
                if self.visitor(n).state == TicketStatus::Waiting {
                    self.visitor(n).seen = now;
                    if self.visitor(n).look_at.is_none() {
                        self.look_later(n);
                    }
                }
            }
        }
        while self.swept < self.now / SECOND {
            for n in self.waiting() {
                let second = self.swept + 1;
                if self.visitor(n).look_at != Some(second) {
                    continue;
                }
                self.visitor(n).look_at = None;
                if self.is_present(n) {
                } else if self.visitor(n).seen + self.settings.grace_seconds * SECOND > self.now {
                    self.look_later(n);
                } else {
                    self.go(n, GoneReason::Away);
                }
            }
            self.swept += 1;
        }
        self.admit();
    }

    pub(super) fn put(&mut self, settings: RoomSettings) {
        let opens_at_ms = self.settings.opens_at_ms;
        self.settings = RoomSettings { opens_at_ms, ..settings };
        self.advance();
    }

    pub(super) fn set_mode(&mut self, mode: Mode) {
        if self.mode != mode {
            self.advance();
            self.mode = mode;
        }
    }

    pub(super) fn present(&mut self, edge: usize, all: bool, opened: &[u64], closed: &[u64]) -> bool {
        let before = (self.at, self.now, self.credit);
        self.advance();
        let lease = self.edges.get(&edge).map(|(lease, _)| *lease);
        if all {
            if let Some((_, tickets)) = self.edges.remove(&edge) {
                // The tickets go to an edge whose lease is over, like those of an edge that died.
                let free = self.edges.keys().max().copied().unwrap_or(0).max(100) + 1;
                self.edges.insert(free, (0, tickets));
            }
        } else if lease.is_none_or(|lease| lease <= self.now) {
            // The script changed nothing, not even the time.
            (self.at, self.now, self.credit) = before;
            return false;
        }
        let until = self.now + LEASE;
        let ours = self.edges.entry(edge).or_default();
        ours.0 = until;
        ours.1.extend(opened);
        for n in closed {
            self.edges.get_mut(&edge).unwrap().1.remove(n);
            if self.visitor(*n).state == TicketStatus::Waiting {
                self.seen(*n);
            }
        }
        true
    }
}
