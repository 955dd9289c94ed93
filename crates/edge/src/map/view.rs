//! A view of the map: its entries at one step, from which clients are served. All readers share one view.

use std::sync::Arc;
use std::time::Duration;

use imbl::{OrdMap, Vector};
use tutti_feed::{Cursor, Position, Record};

use crate::map::area::Area;
use crate::map::entry::{Entry, MediaId};
use crate::map::tile_index::TileIndex;

/// What the map knows of one feed: the position of the last record, and the times of the newest records.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shard {
    /// The last record that was applied.
    pub(crate) position: Option<Position>,
    /// Times in microseconds of the newest records up to `position`, oldest first. A cursor older than all of them is
    /// too old to resume from.
    times: Vector<u64>,
    /// A cursor of an earlier time, in microseconds, is too old to resume from: what it covers may have been removed
    /// by a record that the log no longer had when this edge began to read it.
    complete_since_us: u64,
    /// The largest number of a record whose tombstone has been removed.
    pub(crate) forgotten: u64,
    /// The number of the last record that said that something is missing in Kafka. Clients that were shown less need
    /// a reset.
    pub(crate) gap: u64,
}

impl Shard {
    /// Moves to the next record: adds its time, and removes times that are more than `remember_us` microseconds
    /// before it. `life_us` is the longest time that a fix may be on the map, in microseconds.
    pub(crate) fn advance(&mut self, record: &Record, life_us: u64, remember_us: u64) {
        let position = record.position;
        debug_assert!(
            self.position.is_none_or(|held| held.is_followed_by(position.seq)),
            "a record was left out"
        );
        if self.position.is_none() && position.seq > 1 {
            self.complete_since_us = record.prev_time_us.saturating_add(life_us);
        }
        self.position = Some(position);
        self.times.push_back(position.time_us);
        let oldest = position.time_us.saturating_sub(remember_us);
        while self.times.front().is_some_and(|t| *t < oldest) {
            self.times.pop_front();
        }
    }
}

/// The entries of the map, and the positions of its feeds. A clone is cheap: it shares everything that does not
/// change.
#[derive(Clone, Debug)]
pub(crate) struct MapView {
    entries: OrdMap<MediaId, Arc<Entry>>,
    /// Index of the entries by where devices are and were.
    places: TileIndex,
    /// What the map knows of each feed.
    pub(crate) shards: Vec<Shard>,
}

/// Whether a client can resume from its cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    /// The client can resume. It lacks the entries whose records have a larger number than the one given here for
    /// their feed.
    From(Vec<u64>),
    /// The cursor is not in this history. This edge may not have reached it yet.
    Unknown,
    /// The client cannot resume: the cursor is older than what is remembered.
    TooOld,
}

impl MapView {
    /// Creates a view without entries, of feeds that have no records.
    pub(crate) fn new(shards: usize) -> Self {
        Self { entries: OrdMap::new(), places: TileIndex::default(), shards: vec![Shard::default(); shards] }
    }

    /// Returns the positions up to which records have been applied, one for each feed.
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor(self.shards.iter().map(|s| s.position).collect())
    }

    /// Returns the entry of a mediaId.
    pub(crate) fn get(&self, id: &str) -> Option<&Arc<Entry>> {
        self.entries.get(id)
    }

    /// Puts an entry in the place of the one that the mediaId has, if any.
    pub(crate) fn put(&mut self, id: MediaId, entry: Entry) {
        self.places.replace(&id, self.entries.get(&id).map(|held| &**held), Some(&entry));
        self.entries.insert(id, Arc::new(entry));
    }

    /// Removes the entry of a mediaId.
    pub(crate) fn remove(&mut self, id: &MediaId) {
        let removed = self.entries.remove(id);
        self.places.replace(id, removed.as_deref(), None);
    }

    /// Returns what [`TileIndex::around`] finds.
    pub(crate) fn around(&self, area: Area, from: Option<&[u64]>) -> Option<Vec<MediaId>> {
        self.places.around(area, from)
    }

    /// Returns what [`TileIndex::is_few`] says.
    pub(crate) fn is_few(&self, area: Area, from: Option<&[u64]>) -> bool {
        self.places.is_few(area, from)
    }

    /// Returns the entries with a larger mediaId than `after`, in the order of mediaIds. `None` returns all entries.
    pub(crate) fn after<'a>(
        &'a self,
        after: Option<&MediaId>,
    ) -> impl Iterator<Item = (&'a MediaId, &'a Entry)> + use<'a> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, |id| Excluded(id.clone()));
        self.entries.range((from, Unbounded)).map(|(id, entry)| (id, &**entry))
    }

    /// Returns the fixes on the map, in the order of mediaIds.
    pub(crate) fn alive(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().map(|e| &**e).filter(|e| !e.removed)
    }

    /// Returns the fixes on the map that are in `area`, in the order of mediaIds.
    pub(crate) fn alive_in(&self, area: Area) -> Vec<&Entry> {
        let here = |entry: &&Entry| entry.is_in(area);
        match self.around(area, None) {
            Some(ids) => {
                ids.iter().filter_map(|id| self.get(id)).map(|entry| &**entry).filter(here).collect()
            }
            None => self.alive().filter(here).collect(),
        }
    }

    /// Determines whether a client that was shown everything up to `cursor` can resume from there.
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
                (Some(shown), Some(_)) if shown.seq < oldest || shown.time_us < shard.complete_since_us => {
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

    /// Returns the feeds whose log did not reach back as far as a fix may be on the map, each with the time until
    /// earlier records no longer matter.
    pub(crate) fn incomplete(&self) -> impl Iterator<Item = (usize, Duration)> {
        self.shards.iter().enumerate().filter_map(|(feed, shard)| {
            let left_us =
                shard.complete_since_us.checked_sub(shard.position?.time_us).filter(|us| *us > 0)?;
            Some((feed, Duration::from_micros(left_us)))
        })
    }

    /// Whether a tombstone that is newer than `cursor` has been removed. A client that resumes from `cursor` would
    /// never receive that removal.
    pub(crate) fn forgot_since(&self, cursor: &Cursor) -> bool {
        let shown = cursor.0.iter().map(|place| place.map_or(0, |p| p.seq));
        self.shards.iter().zip(shown).any(|(shard, seq)| shard.forgotten > seq)
    }

    /// Whether all records up to `heads` have been applied.
    pub(crate) fn reaches(&self, heads: &[Option<Position>]) -> bool {
        self.shards.iter().zip(heads).all(|(shard, head)| match (shard.position, head) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(held), Some(head)) => held.covers(*head),
        })
    }
}
