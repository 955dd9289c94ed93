//! What clients are served from: the map at one step, shared by all who read it.

use std::sync::Arc;

use imbl::{OrdMap, Vector};
use tutti_feed::{Cursor, Position, Record};

use crate::entry::{Entry, MediaId};

/// One feed's part of the map: where it stands, and the times of its newest records.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shard {
    pub(crate) position: Option<Position>,
    /// Times of the records up to `position`, oldest first; a cursor older than these is too old.
    times: Vector<u64>,
    /// What was shown before this time may have been removed by a record that the log no longer
    /// had when we began to read it.
    knows_from_us: u64,
    /// The number of the last record that told of a gap: who was shown less must be told too.
    pub(crate) gap: u64,
}

impl Shard {
    /// Goes on to the next record: remembers its time, and forgets those before `remember_us`.
    /// `life_us` is how long a fix may be on the map.
    pub(crate) fn advance(&mut self, record: &Record, life_us: u64, remember_us: u64) {
        let position = record.position;
        if self.position.is_none() && position.seq > 1 {
            self.knows_from_us = record.prev_time_us + life_us;
        }
        self.position = Some(position);
        self.times.push_back(position.time_us);
        let oldest = position.time_us.saturating_sub(remember_us);
        while self.times.front().is_some_and(|t| *t < oldest) {
            self.times.pop_front();
        }
    }
}

/// What clients are served from: a cheap clone shares all but what changed.
#[derive(Clone, Debug)]
pub(crate) struct MapView {
    pub(crate) entries: OrdMap<MediaId, Arc<Entry>>,
    pub(crate) shards: Vec<Shard>,
    /// Tombstones go after this time: as long as the logs hold.
    pub(crate) log_age_us: u64,
}

/// Whether a client can go on from its cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    /// Yes: it lacks what has a later number in its feed than these.
    From(Vec<u64>),
    /// The cursor is not in this history; it may be in what comes yet.
    Unknown,
    /// No: it is older than what is remembered.
    TooOld,
}

impl MapView {
    pub(crate) fn new(shards: usize, log_age_us: u64) -> Self {
        Self { entries: OrdMap::new(), shards: vec![Shard::default(); shards], log_age_us }
    }

    /// The place up to which this is the fold.
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor(self.shards.iter().map(|s| s.position).collect())
    }

    /// Entries with a larger mediaId than `after`, in order.
    pub(crate) fn after<'a>(
        &'a self,
        after: Option<&MediaId>,
    ) -> impl Iterator<Item = (&'a MediaId, &'a Entry)> + use<'a> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, |id| Excluded(id.clone()));
        self.entries.range((from, Unbounded)).map(|(id, entry)| (id, &**entry))
    }

    /// Fixes on the map.
    pub(crate) fn alive(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().map(|e| &**e).filter(|e| !e.removed)
    }

    /// Whether a client that was shown what `cursor` covers can go on from there.
    pub(crate) fn resume(&self, cursor: &Cursor) -> Resume {
        if cursor.0.len() != self.shards.len() {
            return Resume::Unknown;
        }
        let mut from = Vec::with_capacity(self.shards.len());
        for (shard, place) in self.shards.iter().zip(&cursor.0) {
            let oldest = shard.position.map_or(1, |p| p.seq + 1 - shard.times.len() as u64);
            if place.map_or(0, |p| p.seq) < shard.gap {
                return Resume::TooOld;
            }
            from.push(match (place, shard.position) {
                (None, None) => 0,
                (None, Some(_)) if oldest == 1 => 0,
                (None, Some(_)) => return Resume::TooOld,
                (Some(_), None) => return Resume::Unknown,
                (Some(shown), Some(held)) if shown.epoch != held.epoch || shown.seq > held.seq => {
                    return Resume::Unknown;
                }
                (Some(shown), Some(_)) if shown.seq < oldest || shown.time_us < shard.knows_from_us => {
                    return Resume::TooOld;
                }
                (Some(shown), Some(_)) => {
                    if shard.times.get((shown.seq - oldest) as usize) != Some(&shown.time_us) {
                        return Resume::Unknown;
                    }
                    shown.seq
                }
            });
        }
        Resume::From(from)
    }

    /// Whether every removal since `cursor`, from which a walk began, is here still: one that lasts
    /// for too long would pass by tombstones that are gone.
    pub(crate) fn remembers(&self, cursor: &Cursor) -> bool {
        self.shards.iter().zip(&cursor.0).all(|(shard, place)| match (shard.position, place) {
            (None, _) => true,
            (Some(held), Some(shown)) => held.time_us <= shown.time_us + self.log_age_us,
            (Some(held), None) => held.seq == shard.times.len() as u64,
        })
    }

    /// Whether it holds everything up to these heads.
    pub(crate) fn reaches(&self, heads: &[Option<Position>]) -> bool {
        self.shards.iter().zip(heads).all(|(shard, head)| match (shard.position, head) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(held), Some(head)) => held.epoch == head.epoch && held.seq >= head.seq,
        })
    }
}
