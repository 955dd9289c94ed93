//! An index of where each device is and was, by tiles, so that a replay of a district does not walk over the whole
//! map.
//!
//! The index may find too many entries, never too few. The entry itself decides whether a client needs it.
//! With 100,000 devices on the map, opening a district costs 0.1 ms of CPU with the index, and 2.4 ms without it.

use std::ops::RangeInclusive;

use imbl::OrdSet;

use crate::map::area::{Area, Cell};
use crate::map::entry::{Entry, MediaId};

/// Maximum number of mediaIds that the index returns. For more, walking over the whole map is cheaper: to look an id
/// up costs more than a step to the next entry.
const MAX_IDS: usize = 4096;

/// An index of the map's entries. A clone is cheap: it shares everything that does not change.
#[derive(Clone, Debug, Default)]
pub(crate) struct TileIndex {
    /// Each mediaId, in each cell in which its entry remembers the device.
    cells: OrdSet<(Cell, MediaId)>,
    /// MediaIds of devices that were in more tiles than their entries remember, by feed and number of the record that
    /// brought them to the oldest remembered tile.
    wanderers: OrdSet<(usize, u64, MediaId)>,
    /// MediaIds of devices that clients may have been shown anywhere.
    anywhere: OrdSet<MediaId>,
}

impl TileIndex {
    /// Replaces the entry of a mediaId. `None` means no entry, before or after.
    pub(crate) fn replace(&mut self, id: &MediaId, old: Option<&Entry>, new: Option<&Entry>) {
        let (was, is) =
            (old.map(Entry::cells).unwrap_or_default(), new.map(Entry::cells).unwrap_or_default());
        for cell in was.iter().filter(|cell| !is.contains(cell)) {
            self.cells.remove(&(*cell, id.clone()));
        }
        for cell in is.iter().filter(|cell| !was.contains(cell)) {
            self.cells.insert((*cell, id.clone()));
        }
        let (was, is) = (old.and_then(Entry::forgot_before), new.and_then(Entry::forgot_before));
        if was != is {
            was.map(|(shard, seq)| self.wanderers.remove(&(shard, seq, id.clone())));
            is.map(|(shard, seq)| self.wanderers.insert((shard, seq, id.clone())));
        }
        let (was, is) = (old.is_some_and(Entry::was_elsewhere), new.is_some_and(Entry::was_elsewhere));
        if was && !is {
            self.anywhere.remove(id);
        } else if is && !was {
            self.anywhere.insert(id.clone());
        }
    }

    /// Returns the mediaIds, in order, that a client of `area` may need, if it was shown all records up to the numbers
    /// `from` (`None`: it was shown nothing). Returns `None` if there are more than [`MAX_IDS`], so that a walk over the
    /// whole map is cheaper.
    pub(crate) fn around(&self, area: Area, from: Option<&[u64]>) -> Option<Vec<MediaId>> {
        let mut ids: Vec<MediaId> = self.candidates(area, from).take(MAX_IDS + 1).cloned().collect();
        if ids.len() > MAX_IDS {
            return None;
        }
        ids.sort_unstable();
        ids.dedup();
        Some(ids)
    }

    /// Whether [`TileIndex::around`] finds few enough mediaIds to return them.
    pub(crate) fn is_few(&self, area: Area, from: Option<&[u64]>) -> bool {
        self.candidates(area, from).nth(MAX_IDS).is_none()
    }

    /// Returns the mediaIds for [`TileIndex::around`], some perhaps more than once, in no order.
    fn candidates<'a>(&'a self, area: Area, from: Option<&'a [u64]>) -> impl Iterator<Item = &'a MediaId> {
        let ranges = area.cells();
        let here = ranges.flat_map(move |cells: RangeInclusive<Cell>| {
            let (first, last) = cells.into_inner();
            let from_first = self.cells.range((first, nobody())..);
            from_first.take_while(move |(cell, _)| *cell <= last).map(|(_, id)| id)
        });
        let gone = from.into_iter().flatten().enumerate().flat_map(move |(shard, seq)| {
            let later = self.wanderers.range((shard, seq + 1, nobody())..);
            later.take_while(move |(of, _, _)| *of == shard).map(|(_, _, id)| id)
        });
        let anywhere = from.into_iter().flat_map(move |_| self.anywhere.iter());
        here.chain(gone).chain(anywhere)
    }
}

/// Returns an id that sorts before every mediaId.
fn nobody() -> MediaId {
    "".into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::state::tests::{map, record, removal};
    use proptest::prelude::*;
    use tutti_model::{Change, Fix, change};

    const T0: u64 = 1_700_000_000_000_000;

    /// Generates changes of a few devices, near and far.
    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let one = (0u8..8, -4i32..4, -4i32..4, 0u8..3, 0u8..6, 0i64..3).prop_map(
            |(id, x, y, scale, kind, late)| {
                let (media_id, timestamp_ms) = (format!("m{id}"), (T0 / 1000) as i64 + late);
                if kind == 0 {
                    return removal(&media_id, timestamp_ms);
                }
                let step = [0.01, 0.3, 15.0][usize::from(scale)];
                let (latitude, longitude) = (47.0 + f64::from(y) * step, 8.0 + f64::from(x) * step);
                let fix = Fix { media_id, timestamp_ms, latitude, longitude, ..Fix::default() };
                Change { change: Some(change::Change::Fix(fix)) }
            },
        );
        proptest::collection::vec(one, 0..6)
    }

    proptest! {
        #[test]
        fn whoever_is_to_be_told_of_is_found(
            batches in proptest::collection::vec((changes(), 0usize..2), 1..40), from in proptest::array::uniform2(0u64..20),
            west in -4i32..4, south in -4i32..4, scale in 0usize..4, size in 0.1..4.0f64,
        ) {
            let (mut map, mut seqs) = (map(2), [0; 2]);
            for (batch, shard) in batches {
                seqs[shard] += 1;
                map.apply(shard, &record(seqs[shard], T0 + seqs[shard], batch));
            }
            let step = [0.001, 0.01, 0.3, 10.0][scale];
            let (west, south) = (8.0 + f64::from(west) * step, 47.0 + f64::from(south) * step);
            let (east, north) = (west + size * step, (south + size * step).min(90.0));
            let area = Area::parse(&format!("{west},{south},{east},{north}")).unwrap();
            let view = map.view();
            let (new, resumed) = (view.around(area, None).unwrap(), view.around(area, Some(&from)).unwrap());
            for (id, entry) in view.after(None) {
                let here = entry.is_in(area);
                prop_assert!(!here || (new.contains(id) && resumed.contains(id)), "{} is here", id);
                let gone = entry.seq > from[entry.shard] && entry.may_have_been_in(&area, &from);
                prop_assert!(!gone || resumed.contains(id), "{} was here", id);
            }
            prop_assert!(view.is_few(area, Some(&from)));
        }

        /// The index keeps nothing of devices whose tombstones are removed.
        #[test]
        fn who_is_forgotten_is_nowhere(batches in proptest::collection::vec((changes(), 0usize..2), 1..20)) {
            let (mut map, mut seqs) = (map(2), [0; 2]);
            for (batch, shard) in batches {
                seqs[shard] += 1;
                map.apply(shard, &record(seqs[shard], T0 + seqs[shard], batch));
            }
            for (shard, seq) in seqs.iter().enumerate() {
                map.apply(shard, &record(seq + 1, T0 + 60_000_000, vec![]));
                map.apply(shard, &record(seq + 2, T0 + 600_000_000, vec![]));
            }
            prop_assert_eq!(map.view().after(None).count(), 0);
            let world = Area::parse("-180,-90,180,90").unwrap();
            prop_assert_eq!(map.view().around(world, Some(&[0, 0])), Some(vec![]));
        }
    }
}
