//! Entries of the map: the newest fix or removal of one mediaId, and which of two entries is the newer.

use std::sync::Arc;

use tutti_model::Fix;
use tutti_model::location::to_json;

use crate::map::area::{Area, Cell, MAX_ZOOM, WorldPoint};

/// A mediaId. Clones share the text.
pub(crate) type MediaId = Arc<str>;

/// Maximum number of tiles that a device has left and that its entry remembers.
const TRAIL: usize = 4;

/// The newest fix or removal of one mediaId.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) timestamp_ms: i64,
    /// The feed of the record that brought the fix or removal.
    pub(crate) shard: usize,
    /// The number of the record that brought the fix or removal.
    brought_by: u64,
    /// The number of the record that last changed the entry: the record that brought it, or the record at whose time
    /// the fix was stale.
    pub(crate) seq: u64,
    /// Whether a fix brought the entry. Stays true when the fix becomes stale.
    is_fix: bool,
    /// Whether the device is not on the map: it was removed, or its fix is stale.
    pub(crate) removed: bool,
    /// The JSON object that clients receive: the fix, or mediaId and timestamp of the removal.
    pub(crate) json: Box<str>,
    /// Where the device is and was, newest first. Clients that were shown an older state saw the device in the tile
    /// of that time.
    sights: Box<[PastTile]>,
    /// Whether `sights` is complete: the device was nowhere before the oldest of them.
    knows_all: bool,
    /// Whether an older fix came later, from another feed. Clients of an edge that applied the two in another order
    /// were shown the device elsewhere.
    was_elsewhere: bool,
}

/// The tile in which a device was from one record on.
#[derive(Clone, Copy, Debug, PartialEq)]
struct PastTile {
    /// The device's latest point in the tile.
    spot: WorldPoint,
    /// The feed of the record with which the device came to the tile.
    shard: usize,
    /// The number of the record with which the device came to the tile.
    seq: u64,
}

impl Entry {
    /// Creates the entry of a fix that the record `seq` of a feed brought.
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

    /// Creates the entry of a removal that the record `seq` of a feed brought.
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

    /// Returns the tombstone of a fix that is stale at the time of the record `seq` of its feed. The tombstone has
    /// the rank of the fix; otherwise an older fix of the same mediaId from another feed could take its place.
    pub(crate) fn grown_stale(&self, id: &str, seq: u64) -> Self {
        let json = removal_json(id, self.timestamp_ms);
        Self { seq, removed: true, json, sights: self.sights.clone(), ..*self }
    }

    /// Returns this entry as the successor of `held`: it remembers where the device was before.
    pub(crate) fn after(mut self, held: &Self) -> Self {
        let here = self.sights.first().copied();
        let stays = here.zip(held.sights.first()).is_some_and(|(here, there)| {
            !held.removed && here.spot.tile(MAX_ZOOM) == there.spot.tile(MAX_ZOOM)
        });
        let before = if stays { &held.sights[1..] } else { &held.sights[..] };
        // A device that stays in its tile has been there since it came, but is found at its present point.
        let here = here.map(|here| if stays { PastTile { spot: here.spot, ..held.sights[0] } } else { here });
        self.was_elsewhere = held.was_elsewhere;
        self.knows_all = held.knows_all && before.len() <= TRAIL;
        self.sights = here.into_iter().chain(before.iter().copied().take(TRAIL)).collect();
        self
    }

    /// Returns this entry with the mark that an older fix of its mediaId came later, from another feed.
    pub(crate) fn elsewhere(&self) -> Self {
        Self { was_elsewhere: true, ..self.clone() }
    }

    /// Returns where the device is, or `None` if it is not on the map.
    pub(crate) fn spot(&self) -> Option<WorldPoint> {
        self.sights.first().filter(|_| !self.removed).map(|sight| sight.spot)
    }

    /// Whether the device is on the map and in `area`.
    pub(crate) fn is_in(&self, area: Area) -> bool {
        self.spot().is_some_and(|spot| area.contains(spot))
    }

    /// Returns the cells in which the device is or was, each once, in order.
    pub(crate) fn cells(&self) -> Vec<Cell> {
        let mut cells: Vec<Cell> = self.sights.iter().map(|sight| sight.spot.cell()).collect();
        cells.sort_unstable();
        cells.dedup();
        cells
    }

    /// Returns feed and number of the record that brought the device to the oldest remembered tile, or `None` if it
    /// was nowhere before that.
    pub(crate) fn forgot_before(&self) -> Option<(usize, u64)> {
        self.sights.last().filter(|_| !self.knows_all).map(|oldest| (oldest.shard, oldest.seq))
    }

    /// Whether clients may have been shown the device anywhere, because edges applied its fixes in different orders.
    pub(crate) fn was_elsewhere(&self) -> bool {
        self.was_elsewhere
    }

    /// Whether a client that was shown all records up to the numbers `from`, or a little more, may have been shown
    /// the device in `area`. May return true where it was not; never returns false where it was.
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

    /// Returns the JSON object that clients receive when the device leaves the area that they look at.
    pub(crate) fn departure(&self, id: &str) -> Box<str> {
        removal_json(id, self.timestamp_ms)
    }

    /// Returns the rank: of two entries of one mediaId, the larger one stays. The newer timestamp wins; at equal
    /// timestamps a fix wins over a removal, then the larger shard wins, and within a shard the later record.
    pub(crate) fn rank(&self) -> (i64, bool, usize, u64) {
        (self.timestamp_ms, self.is_fix, self.shard, self.brought_by)
    }
}

/// Returns the JSON object with which clients remove a device.
fn removal_json(id: &str, timestamp_ms: i64) -> Box<str> {
    let id = serde_json::to_string(id).expect("a string always serialises");
    format!(r#"{{"mediaId":{id},"timestamp":{timestamp_ms}}}"#).into()
}
