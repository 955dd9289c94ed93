//! The last word on one mediaId, and which of two is the later.

use std::sync::Arc;

use tutti_model::Fix;
use tutti_model::location::to_json;

use crate::map::area::{Area, Cell, MAX_ZOOM, WorldPoint};

pub(crate) type MediaId = Arc<str>;

/// So many of the tiles that a device has left are remembered.
const TRAIL: usize = 4;

/// The last word on one mediaId.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) timestamp_ms: i64,
    /// The feed of the record that brought it,
    pub(crate) shard: usize,
    /// and that record's number.
    brought_by: u64,
    /// The number of the record that last changed it: the one that brought it, or the one at whose
    /// time it was stale.
    pub(crate) seq: u64,
    is_fix: bool,
    pub(crate) removed: bool,
    /// The JSON object that clients get: the fix, or mediaId and timestamp of the removal.
    pub(crate) json: Box<str>,
    /// Where it is and was, the newest first; who was shown an older one was shown it in that tile.
    sights: Box<[PastTile]>,
    /// It was nowhere before.
    knows_all: bool,
    /// Another feed's older word on it came later: who heard them in another order was shown it elsewhere.
    was_elsewhere: bool,
}

/// Where a device was from a record on, exact to the smallest tile.
#[derive(Clone, Copy, Debug, PartialEq)]
struct PastTile {
    spot: WorldPoint,
    shard: usize,
    seq: u64,
}

impl Entry {
    pub(crate) fn fix(fix: &Fix, shard: usize, seq: u64) -> Self {
        let spot = WorldPoint::of(fix.latitude, fix.longitude);
        Self {
            timestamp_ms: fix.timestamp_ms,
            shard,
            brought_by: seq,
            seq,
            is_fix: true,
            removed: false,
            json: to_json(fix).into(),
            sights: [PastTile { spot, shard, seq }].into(),
            knows_all: true,
            was_elsewhere: false,
        }
    }

    pub(crate) fn removal(id: &str, timestamp_ms: i64, shard: usize, seq: u64) -> Self {
        Self {
            timestamp_ms,
            shard,
            brought_by: seq,
            seq,
            is_fix: false,
            removed: true,
            json: removal_json(id, timestamp_ms),
            sights: [].into(),
            knows_all: true,
            was_elsewhere: false,
        }
    }

    /// A fix that is stale at the time of the record `seq` of its feed. It keeps its rank, or
    /// another feed's older word on the same mediaId could come after it.
    pub(crate) fn grown_stale(&self, id: &str, seq: u64) -> Self {
        let json = removal_json(id, self.timestamp_ms);
        Self { seq, removed: true, json, sights: self.sights.clone(), ..*self }
    }

    /// This one in place of that: it remembers where the other was.
    pub(crate) fn after(mut self, held: &Self) -> Self {
        let here = self.sights.first().copied();
        let stays = here.zip(held.sights.first()).is_some_and(|(here, there)| {
            !held.removed && here.spot.tile(MAX_ZOOM) == there.spot.tile(MAX_ZOOM)
        });
        let before = if stays { &held.sights[1..] } else { &held.sights[..] };
        // Who stays in a tile has been there since it came, but is to be found where it is now.
        let here = here.map(|here| if stays { PastTile { spot: here.spot, ..held.sights[0] } } else { here });
        self.was_elsewhere = held.was_elsewhere;
        self.knows_all = held.knows_all && before.len() <= TRAIL;
        self.sights = here.into_iter().chain(before.iter().copied().take(TRAIL)).collect();
        self
    }

    /// The same, after another feed's older word on it.
    pub(crate) fn elsewhere(&self) -> Self {
        Self { was_elsewhere: true, ..self.clone() }
    }

    /// Where it is, if it is on the map.
    pub(crate) fn spot(&self) -> Option<WorldPoint> {
        self.sights.first().filter(|_| !self.removed).map(|sight| sight.spot)
    }

    /// Whether it is on the map, and there.
    pub(crate) fn is_in(&self, area: Area) -> bool {
        self.spot().is_some_and(|spot| area.contains(spot))
    }

    /// The cells of where it is and was, each once.
    pub(crate) fn cells(&self) -> Vec<Cell> {
        let mut cells: Vec<Cell> = self.sights.iter().map(|sight| sight.spot.cell()).collect();
        cells.sort_unstable();
        cells.dedup();
        cells
    }

    /// The feed and number of the oldest sight, if it was elsewhere before that.
    pub(crate) fn forgot_before(&self) -> Option<(usize, u64)> {
        self.sights.last().filter(|_| !self.knows_all).map(|oldest| (oldest.shard, oldest.seq))
    }

    /// Whether it may have been shown anywhere.
    pub(crate) fn was_elsewhere(&self) -> bool {
        self.was_elsewhere
    }

    /// Whether one who was shown all up to these numbers, or a little more, may have been shown it there.
    pub(crate) fn may_have_been_in(&self, area: &Area, from: &[u64]) -> bool {
        if self.was_elsewhere {
            return true;
        }
        for PastTile { spot, shard, seq } in &self.sights {
            if area.contains(*spot) {
                return true;
            }
            if *seq <= from[*shard] {
                return false;
            }
        }
        !self.knows_all
    }

    /// What clients get when it leaves what they look at.
    pub(crate) fn departure(&self, id: &str) -> Box<str> {
        removal_json(id, self.timestamp_ms)
    }

    /// The newer timestamp wins; at equal ones a fix against a removal, then the later record.
    pub(crate) fn rank(&self) -> (i64, bool, usize, u64) {
        (self.timestamp_ms, self.is_fix, self.shard, self.brought_by)
    }
}

fn removal_json(id: &str, timestamp_ms: i64) -> Box<str> {
    let id = serde_json::to_string(id).expect("a string always serialises");
    format!(r#"{{"mediaId":{id},"timestamp":{timestamp_ms}}}"#).into()
}
