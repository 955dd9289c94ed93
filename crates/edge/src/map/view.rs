//! What clients are served from: the map at one step, shared by all who read it.

use std::sync::Arc;
use std::time::Duration;

use imbl::{OrdMap, Vector};
use tutti_feed::{Cursor, Position, Record};

use crate::map::area::Area;
use crate::map::entry::{Entry, MediaId};
use crate::map::tile_index::TileIndex;

/// One feed's part of the map: where it stands, and the times of its newest records.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shard {
    pub(crate) position: Option<Position>,
    /// Times of the records up to `position`, oldest first; a cursor older than these is too old.
    times: Vector<u64>,
    /// What was shown before this time may have been removed by a record that the log no longer
    /// had when we began to read it.
    knows_from_us: u64,
    /// The largest number of a record whose removal has been forgotten.
    pub(crate) forgotten: u64,
    /// The number of the last record that told of a gap: who was shown less must be told too.
    pub(crate) gap: u64,
}

impl Shard {
    /// Goes on to the next record: remembers its time, and forgets those before `remember_us`.
    /// `life_us` is how long a fix may be on the map.
    pub(crate) fn advance(&mut self, record: &Record, life_us: u64, remember_us: u64) {
        let position = record.position;
        debug_assert!(
            self.position.is_none_or(|held| held.is_followed_by(position.seq)),
            "a record was left out"
        );
        if self.position.is_none() && position.seq > 1 {
            self.knows_from_us = record.prev_time_us.saturating_add(life_us);
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
    entries: OrdMap<MediaId, Arc<Entry>>,
    places: TileIndex,
    pub(crate) shards: Vec<Shard>,
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
    pub(crate) fn new(shards: usize) -> Self {
        Self { entries: OrdMap::new(), places: TileIndex::default(), shards: vec![Shard::default(); shards] }
    }

    /// The place up to which this is the fold.
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor(self.shards.iter().map(|s| s.position).collect())
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Arc<Entry>> {
        self.entries.get(id)
    }

    /// An entry in place of the one that has its mediaId.
    pub(crate) fn put(&mut self, id: MediaId, entry: Entry) {
        self.places.replace(&id, self.entries.get(&id).map(|held| &**held), Some(&entry));
        self.entries.insert(id, Arc::new(entry));
    }

    pub(crate) fn remove(&mut self, id: &MediaId) {
        let removed = self.entries.remove(id);
        self.places.replace(id, removed.as_deref(), None);
    }

    /// As [`TileIndex::around`].
    pub(crate) fn around(&self, area: Area, from: Option<&[u64]>) -> Option<Vec<MediaId>> {
        self.places.around(area, from)
    }

    /// As [`TileIndex::is_few`].
    pub(crate) fn is_few(&self, area: Area, from: Option<&[u64]>) -> bool {
        self.places.is_few(area, from)
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

    /// Those in an area.
    pub(crate) fn alive_in(&self, area: Area) -> Vec<&Entry> {
        let here = |entry: &&Entry| entry.is_in(area);
        match self.around(area, None) {
            Some(ids) => {
                ids.iter().filter_map(|id| self.get(id)).map(|entry| &**entry).filter(here).collect()
            }
            None => self.alive().filter(here).collect(),
        }
    }

    /// Whether a client that was shown what `cursor` covers can go on from there.
    pub(crate) fn resume(&self, cursor: &Cursor) -> Resume {
        if cursor.0.len() != self.shards.len() {
            return Resume::Unknown;
        }
        let mut from = Vec::with_capacity(self.shards.len());
        for (shard, place) in self.shards.iter().zip(&cursor.0) {
            let oldest = shard
                .position
                .map_or(1, |p| (p.seq.saturating_add(1)).saturating_sub(shard.times.len() as u64));
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

    /// The feeds whose log did not reach back as far as a fix may live, and the time until what came
    /// before it no longer matters.
    pub(crate) fn incomplete(&self) -> impl Iterator<Item = (usize, Duration)> {
        self.shards.iter().enumerate().filter_map(|(feed, shard)| {
            let left_us = shard.knows_from_us.checked_sub(shard.position?.time_us).filter(|us| *us > 0)?;
            Some((feed, Duration::from_micros(left_us)))
        })
    }

    /// Whether a removal that came after `cursor` has been forgotten since: who goes on from there
    /// would never hear of it.
    pub(crate) fn forgot_since(&self, cursor: &Cursor) -> bool {
        let shown = cursor.0.iter().map(|place| place.map_or(0, |p| p.seq));
        self.shards.iter().zip(shown).any(|(shard, seq)| shard.forgotten > seq)
    }

    /// Whether it holds everything up to these heads.
    pub(crate) fn reaches(&self, heads: &[Option<Position>]) -> bool {
        self.shards.iter().zip(heads).all(|(shard, head)| match (shard.position, head) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(held), Some(head)) => held.covers(*head),
        })
    }
}
