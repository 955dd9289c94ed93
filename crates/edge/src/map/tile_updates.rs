//! What a step changes in each tile, and in each cell of clusters. Changes are grouped once for each zoom and encoded
//! once for each tile, when the first client looks there.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use serde_json::json;

use crate::map::area::{Area, ByZoom, Tile, WorldPoint, cell_zoom, centre_of};
use crate::map::entry::{Entry, MediaId};
use crate::map::view::MapView;
use crate::metrics::Metrics;
use tutti_model::events::{LIVE_MAP_CLUSTER, LIVE_MAP_LOCATION, LIVE_MAP_REMOVED};
use tutti_sse::events::Events;
use tutti_sse::frame::Frame;

/// An entry that changed in a step.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) id: MediaId,
    /// The entry after the step.
    pub(crate) entry: Arc<Entry>,
    /// Where the device was on the map before the step. `None` if it was not there.
    pub(crate) was: Option<WorldPoint>,
}

/// What a step changes in one tile.
#[derive(Debug, Default)]
pub(crate) struct TileChange {
    /// Indices of changes whose device went to another tile.
    left: Vec<usize>,
    /// Indices of changes whose device is in the tile, or was in the tile and is no longer on the map.
    news: Vec<usize>,
    /// The changes as clients of the tile receive them.
    frames: OnceLock<TileFrames>,
}

/// The events of a tile: devices that are no longer in it, and devices with a new fix in it. Each is one event.
#[derive(Debug, Default)]
struct TileFrames {
    removed: Option<Frame>,
    fixes: Option<Frame>,
}

/// The changes of a step, by zoom and tile.
#[derive(Debug)]
pub(crate) struct Tiles {
    changes: Vec<Change>,
    zooms: ByZoom<HashMap<Tile, TileChange>>,
}

impl Tiles {
    /// Creates the changes of a step. They are grouped and encoded when they are first needed.
    pub(crate) fn new(changes: Vec<Change>) -> Self {
        Self { changes, zooms: Default::default() }
    }

    /// Returns the events for clients of an area, one event in each frame. Removals come first, so that a device that
    /// went from one tile of the area to another is on the map after both events.
    pub(crate) fn frames(&self, area: Area, metrics: &Metrics) -> Vec<&Frame> {
        let tiles = self.zooms[area.zoom() as usize].get_or_init(|| self.grouped(area.zoom()));
        let here: Vec<_> = area
            .each()
            .filter_map(|tile| tiles.get(&tile))
            .map(|change| change.frames.get_or_init(|| self.encode(change, metrics)))
            .collect();
        let removed = here.iter().filter_map(|frames| frames.removed.as_ref());
        removed.chain(here.iter().filter_map(|frames| frames.fixes.as_ref())).collect()
    }

    /// Groups the changes by tiles of a zoom.
    fn grouped(&self, zoom: u8) -> HashMap<Tile, TileChange> {
        let mut tiles: HashMap<Tile, TileChange> = HashMap::new();
        for (at, Change { entry, was, .. }) in self.changes.iter().enumerate() {
            let (here, was) = (entry.spot().map(|spot| spot.tile(zoom)), was.map(|spot| spot.tile(zoom)));
            if let Some(tile) = here.or(was) {
                tiles.entry(tile).or_default().news.push(at);
            }
            if let Some(was) = was.filter(|_| here.is_some() && here != was) {
                tiles.entry(was).or_default().left.push(at);
            }
        }
        tiles
    }

    /// Encodes what a step changes in one tile, and counts it.
    fn encode(&self, change: &TileChange, metrics: &Metrics) -> TileFrames {
        metrics.tiles_encoded.inc();
        let gone = change.left.iter().map(|at| &self.changes[*at]);
        let departures: Vec<_> = gone.map(|change| change.entry.departure(&change.id)).collect();
        let news = change.news.iter().map(|at| &*self.changes[*at].entry);
        let (removed, fixes) = removed_and_fixes(news);
        let removed = removed.iter().map(|entry| &*entry.json);
        TileFrames {
            removed: frame_of(LIVE_MAP_REMOVED, departures.iter().map(|text| &**text).chain(removed)),
            fixes: frame_of(LIVE_MAP_LOCATION, fixes.iter().map(|entry| &*entry.json)),
        }
    }
}

/// Returns a frame with one event, or `None` if there are no items.
fn frame_of<'a>(name: &str, items: impl Iterator<Item = &'a str>) -> Option<Frame> {
    let mut events = Events::default();
    events.array(name, items);
    (!events.is_empty()).then(|| events.frame())
}

/// Separates removals from fixes. The fixes are sorted, oldest first.
fn removed_and_fixes<'a>(entries: impl Iterator<Item = &'a Entry>) -> (Vec<&'a Entry>, Vec<&'a Entry>) {
    let (removed, mut fixes): (Vec<_>, Vec<_>) = entries.partition(|entry| entry.removed);
    fixes.sort_by_key(|entry| entry.timestamp_ms);
    (removed, fixes)
}

/// Appends entries as the events that clients receive: removals, then fixes, oldest first.
pub(crate) fn write_news<'a>(entries: impl Iterator<Item = &'a Entry>, events: &mut Events) {
    let (removed, fixes) = removed_and_fixes(entries);
    events.array(LIVE_MAP_REMOVED, removed.iter().map(|entry| &*entry.json));
    events.array(LIVE_MAP_LOCATION, fixes.iter().map(|entry| &*entry.json));
}

/// The number of devices in each cell that has any, by the tile that contains the cell.
pub(crate) type Cells = HashMap<Tile, BTreeMap<Tile, u32>>;

/// Counts the devices in the cells of all tiles of one zoom.
pub(crate) fn cells_of(view: &MapView, zoom: u8) -> Cells {
    let mut cells = Cells::new();
    for spot in view.alive().filter_map(Entry::spot) {
        let tile = cells.entry(spot.tile(zoom)).or_default();
        *tile.entry(spot.tile(cell_zoom(zoom))).or_default() += 1;
    }
    cells
}

/// Returns the event for each tile of which some cells have another count than before. Cells that became empty have
/// the count 0.
pub(crate) fn changed_cells(cells: &Cells, before: &Cells, zoom: u8) -> HashMap<Tile, Frame> {
    let none = BTreeMap::new();
    let mut frames = HashMap::new();
    for tile in cells.keys().chain(before.keys().filter(|tile| !cells.contains_key(*tile))) {
        let (now, then) = (cells.get(tile).unwrap_or(&none), before.get(tile).unwrap_or(&none));
        let changed = now.iter().filter(|(cell, count)| then.get(*cell) != Some(*count));
        let emptied = then.keys().filter(|cell| !now.contains_key(*cell)).map(|cell| (*cell, 0));
        let mut events = Events::default();
        write_counts(changed.map(|(cell, count)| (*cell, *count)).chain(emptied), zoom, &mut events);
        if !events.is_empty() {
            frames.insert(*tile, events.frame());
        }
    }
    frames
}

/// Appends the event with all cells of an area.
pub(crate) fn write_cells(cells: &Cells, area: Area, events: &mut Events) {
    let here = area.each().filter_map(|tile| cells.get(&tile)).flatten();
    write_counts(here.map(|(cell, count)| (*cell, *count)), area.zoom(), events);
}

/// Appends the event with these cells of an area of this zoom. Appends nothing if there are none.
fn write_counts(counts: impl Iterator<Item = (Tile, u32)>, zoom: u8, events: &mut Events) {
    let zoom = cell_zoom(zoom);
    let texts: Vec<String> = counts
        .map(|(cell, count)| {
            let (latitude, longitude) = centre_of(cell, zoom);
            let name = format!("{zoom}/{}/{}", cell.0, cell.1);
            json!({ "cell": name, "count": count, "latitude": latitude, "longitude": longitude }).to_string()
        })
        .collect();
    events.array(LIVE_MAP_CLUSTER, texts.iter().map(String::as_str));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::replay::Replay;
    use crate::map::state::MapState;
    use crate::map::state::tests::{map, record, removal};
    use crate::map::tick::{Step, Tick};
    use crate::map::view::Resume;
    use prometheus_client::registry::Registry;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use tutti_model::{Fix, change};

    const T0: u64 = 1_700_000_000_000_000;

    /// Returns one of a few points in and around the area.
    fn place(n: u8) -> (f64, f64) {
        (47.0 + f64::from(n % 5) * 0.02, 8.0 + f64::from(n / 5) * 0.02)
    }

    fn area() -> Area {
        Area::parse("8.015,47.015,8.045,47.045").unwrap()
    }

    fn changes() -> impl Strategy<Value = Vec<tutti_model::Change>> {
        let one = (0u8..8, 0u8..25, 0u8..5, 0i64..3).prop_map(|(id, at, kind, late)| {
            let (id, timestamp_ms) = (format!("m{id}"), (T0 / 1000) as i64 + late);
            let (latitude, longitude) = place(at);
            let fix = Fix { media_id: id.clone(), timestamp_ms, latitude, longitude, ..Fix::default() };
            if kind == 0 {
                removal(&id, timestamp_ms)
            } else {
                tutti_model::Change { change: Some(change::Change::Fix(fix)) }
            }
        });
        proptest::collection::vec(one, 0..6)
    }

    fn inside(map: &MapState) -> BTreeSet<String> {
        map.view()
            .after(None)
            .filter(|(_, entry)| entry.is_in(area()))
            .map(|(id, _)| id.to_string())
            .collect()
    }

    /// Applies events in order, as a client without rules of its own does.
    fn hear(shown: &mut BTreeSet<String>, text: &str) {
        for line in text.split("\n\n") {
            let Some((name, data)) = line.split_once("\ndata: ") else { continue };
            let data = data.lines().next().unwrap();
            for item in serde_json::from_str::<Vec<serde_json::Value>>(data).unwrap() {
                let id = item["mediaId"].as_str().unwrap().to_owned();
                if name == "event: liveMapLocation" {
                    shown.insert(id)
                } else {
                    shown.remove(&id)
                };
            }
        }
    }

    fn step(map: &mut MapState, no: u64) -> Tick {
        Tick::new(map, Step::numbered(no))
    }

    proptest! {
        #[test]
        fn an_areas_steps_and_replays_show_what_is_there(
            batches in proptest::collection::vec((changes(), any::<bool>()), 1..30), from in 0usize..20,
        ) {
            let metrics = Metrics::new(&mut Registry::default());
            let (mut map, mut live, mut resumed) = (map(1), BTreeSet::new(), None);
            for (at, (batch, ticks)) in batches.into_iter().enumerate() {
                let seq = at as u64 + 1;
                map.apply(0, &record(seq, T0 + seq, batch));
                if ticks {
                    let tick = step(&mut map, seq);
                    let frames = tick.tiles.frames(area(), &metrics);
                    let text = frames.iter().map(|frame| String::from_utf8_lossy(frame.bytes(false)).into_owned());
                    hear(&mut live, &text.collect::<String>());
                    prop_assert_eq!(&live, &inside(&map));
                }
                if at == from {
                    resumed = Some((map.view().cursor(), inside(&map)));
                }
            }
            if let Some((cursor, mut shown)) = resumed {
                let Resume::From(from) = map.view().resume(&cursor) else { panic!("lost the cursor") };
                let mut replay = Replay::new(Some(from), Some(area()), map.view());
                while !replay.is_done() {
                    hear(&mut shown, &replay.next_chunk(map.view()).into_text());
                }
                prop_assert_eq!(shown, inside(&map));
            }
        }

        /// An edge that has just read the logs has read the shards one after the other.
        #[test]
        fn who_was_shown_an_area_resumes_where_the_shards_were_read_in_another_order(
            batches in proptest::collection::vec((changes(), 0usize..2), 1..30), from in 0usize..20,
        ) {
            let (mut mixed, mut sequential, mut seqs) = (map(2), map(2), [0; 2]);
            let (mut left, mut records) = (None, [Vec::new(), Vec::new()]);
            for (at, (batch, shard)) in batches.into_iter().enumerate() {
                seqs[shard] += 1;
                let record = record(seqs[shard], T0 + seqs[shard], batch);
                mixed.apply(shard, &record);
                records[shard].push(record);
                if at == from {
                    left = Some((mixed.view().cursor(), inside(&mixed)));
                }
            }
            for (shard, records) in records.iter().enumerate() {
                for record in records {
                    sequential.apply(shard, record);
                }
            }
            prop_assert_eq!(inside(&mixed), inside(&sequential));
            if let Some((cursor, mut shown)) = left
                && let Resume::From(from) = sequential.view().resume(&cursor)
            {
                let mut replay = Replay::new(Some(from), Some(area()), sequential.view());
                while !replay.is_done() {
                    hear(&mut shown, &replay.next_chunk(sequential.view()).into_text());
                }
                prop_assert_eq!(shown, inside(&sequential));
            }
        }

        #[test]
        fn cells_count_what_is_in_an_area(batches in proptest::collection::vec(changes(), 1..10)) {
            let (mut map, zoom) = (map(1), area().zoom());
            let mut counts: HashMap<String, u64> = HashMap::new();
            let mut before = Cells::new();
            for (at, batch) in batches.into_iter().enumerate() {
                let seq = at as u64 + 1;
                map.apply(0, &record(seq, T0 + seq, batch));
                let cells = cells_of(map.view(), zoom);
                let frames = changed_cells(&cells, &before, zoom);
                for frame in area().each().filter_map(|tile| frames.get(&tile)) {
                    let text = String::from_utf8(frame.bytes(false).to_vec()).unwrap();
                    let (_, data) = text.split_once("data: ").unwrap();
                    for cell in serde_json::from_str::<Vec<serde_json::Value>>(data).unwrap() {
                        counts.insert(cell["cell"].to_string(), cell["count"].as_u64().unwrap());
                    }
                }
                let mut whole = Events::default();
                write_cells(&cells, area(), &mut whole);
                let cells_sent = whole.into_text().matches("\"count\":").count();
                prop_assert_eq!(cells_sent, counts.values().filter(|count| **count > 0).count());
                before = cells;
                prop_assert_eq!(counts.values().sum::<u64>(), inside(&map).len() as u64);
            }
        }
    }
}
