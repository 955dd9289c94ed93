//! Replays, which take a client that is new, behind or resuming to a step of the map. They are pure and go chunk by
//! chunk.

use std::borrow::Cow;

use crate::map::area::Area;
use crate::map::entry::{Entry, MediaId};
use crate::map::view::MapView;
use tutti_model::events::{LIVE_MAP_LOCATION, LIVE_MAP_REMOVED};
use tutti_sse::events::Events;

/// Approximate size of a chunk in bytes.
pub(crate) const CHUNK_BYTES: usize = 16 * 1024;

/// Number of entries that a replay looks at before it lets other tasks run.
const LOOKS: usize = 100_000;

/// A walk over the map in the order of mediaIds. Each chunk reads the newest state. What changes behind the walk
/// comes with the next replay, or live.
#[derive(Debug)]
pub(crate) struct Replay {
    /// For each shard, the number of the record up to which the client was shown everything. `None`: the client was
    /// shown nothing.
    from: Option<Vec<u64>>,
    /// Restricts the walk to entries that are in the area or may have left it.
    area: Option<Area>,
    left: Left,
}

/// The entries that a walk has not reached yet.
#[derive(Debug)]
enum Left {
    /// All entries after this mediaId.
    All(Option<MediaId>),
    /// The entries of these mediaIds, the next one last.
    Of(Vec<MediaId>),
    Nothing,
}

/// The entries of one chunk.
#[derive(Default)]
struct Chunk<'a> {
    fixes: Vec<&'a Entry>,
    removed: Vec<Cow<'a, str>>,
    bytes: usize,
}

impl Replay {
    /// Creates a replay of all changes after the numbers in `from`, including removals. `None` replays all fixes on
    /// the map.
    pub(crate) fn new(from: Option<Vec<u64>>, area: Option<Area>, view: &MapView) -> Self {
        let around = area.and_then(|area| view.around(area, from.as_deref()));
        let left = around.map_or(Left::All(None), |mut ids| {
            ids.reverse();
            Left::Of(ids)
        });
        Self { from, area, left }
    }

    /// Whether the walk has reached the end of the map.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.left, Left::Nothing)
    }

    /// Whether the replay looks at a few known entries, not at the whole map.
    pub(crate) fn is_short(&self) -> bool {
        !matches!(self.left, Left::All(_))
    }

    /// Returns the next events, about [`CHUNK_BYTES`] at most. The result is empty if the walk only pauses, or ends.
    pub(crate) fn next_chunk(&mut self, view: &MapView) -> Events {
        let mut chunk = Chunk::default();
        self.left = match std::mem::replace(&mut self.left, Left::Nothing) {
            Left::All(after) => {
                let mut walk = view.after(after.as_ref()).enumerate();
                let last = walk.find(|(looks, (id, entry))| {
                    self.look(id, entry, &mut chunk);
                    chunk.bytes >= CHUNK_BYTES || *looks >= LOOKS
                });
                last.map_or(Left::Nothing, |(_, (id, _))| Left::All(Some(id.clone())))
            }
            Left::Of(mut ids) => {
                while chunk.bytes < CHUNK_BYTES
                    && let Some(id) = ids.pop()
                {
                    if let Some(entry) = view.get(&id) {
                        self.look(&id, entry, &mut chunk);
                    }
                }
                if ids.is_empty() { Left::Nothing } else { Left::Of(ids) }
            }
            Left::Nothing => Left::Nothing,
        };
        chunk.events()
    }

    /// Adds an entry to the chunk, as a fix or a removal, if the client needs it.
    fn look<'a>(&self, id: &MediaId, entry: &'a Entry, chunk: &mut Chunk<'a>) {
        let is_new = self.from.as_ref().is_none_or(|from| entry.seq > from[entry.shard]);
        if is_new && !entry.removed && self.area.is_none_or(|area| entry.is_in(area)) {
            chunk.bytes += entry.json.len() + 1;
            chunk.fixes.push(entry);
        } else if let Some(from) = self.from.as_ref().filter(|_| is_new)
            && self.area.is_none_or(|area| entry.may_have_been_in(&area, from))
        {
            let text = if entry.removed {
                Cow::from(&*entry.json)
            } else {
                entry.departure(id).into_string().into()
            };
            chunk.bytes += text.len() + 1;
            chunk.removed.push(text);
        }
    }
}

impl Chunk<'_> {
    /// Returns the chunk as events: removals, then fixes, oldest first.
    fn events(mut self) -> Events {
        self.fixes.sort_by_key(|entry| entry.timestamp_ms);
        let mut events = Events::default();
        events.array(LIVE_MAP_REMOVED, self.removed.iter().map(|text| &**text));
        events.array(LIVE_MAP_LOCATION, self.fixes.iter().map(|entry| &*entry.json));
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::state::MapState;
    use crate::map::state::tests::{fix, map, record, removal};
    use crate::map::view::Resume;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use tutti_model::Change;

    const T0: u64 = 1_700_000_000_000_000;

    /// Applies events to what a browser holds.
    fn hear(shown: &mut BTreeMap<String, i64>, events: Events) {
        let text = events.into_text();
        for event in text.split("\n\n").filter(|e| !e.is_empty()) {
            let (name, data) = event.split_once("\ndata: ").unwrap();
            for item in serde_json::from_str::<Vec<serde_json::Value>>(data).unwrap() {
                let id = item["mediaId"].as_str().unwrap().to_owned();
                let timestamp = item["timestamp"].as_i64().unwrap();
                match name {
                    "event: liveMapLocation" => {
                        let before = shown.insert(id, timestamp);
                        assert!(before.is_none_or(|b| b <= timestamp), "a step back in time");
                    }
                    "event: liveMapRemoved" => drop(shown.remove(&id)),
                    other => panic!("{other}"),
                }
            }
        }
    }

    fn alive(map: &MapState) -> BTreeMap<String, i64> {
        map.view()
            .after(None)
            .filter(|(_, e)| !e.removed)
            .map(|(id, e)| (id.to_string(), e.timestamp_ms))
            .collect()
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let one = (0u16..60, 0i64..1000, 0u8..4).prop_map(|(id, at, kind)| {
            let id = format!("m{id}");
            let at = (T0 / 1000) as i64 + at;
            if kind == 0 { removal(&id, at) } else { fix(&id, at) }
        });
        proptest::collection::vec(one, 0..40)
    }

    #[test]
    fn a_large_map_comes_in_bounded_chunks() {
        let mut map = map(1);
        let many = (0..2000).map(|i| fix(&format!("m{i}"), (T0 / 1000) as i64)).collect();
        map.apply(0, &record(1, T0, many));
        let (mut replay, mut shown, mut chunks) = (Replay::new(None, None, map.view()), BTreeMap::new(), 0);
        while !replay.is_done() {
            let events = replay.next_chunk(map.view());
            assert!(events.len() < CHUNK_BYTES + 400, "{}", events.len());
            hear(&mut shown, events);
            chunks += 1;
        }
        assert!(chunks > 5);
        assert_eq!(shown, alive(&map));
    }

    proptest! {
        /// A client that receives a replay while the map changes, and then a second one from the step of the first,
        /// holds what the map holds.
        #[test]
        fn a_replay_over_a_moving_map_and_its_successor_arrive(
            batches in proptest::collection::vec(changes(), 4..12),
            resume_at in 0usize..4, moves in proptest::collection::vec(0usize..3, 0..12),
        ) {
            let mut map = map(1);
            let mut seq = 0;
            let mut batches = batches.into_iter();
            let mut step = |map: &mut MapState| if let Some(changes) = batches.next() {
                seq += 1;
                map.apply(0, &record(seq, T0 + seq, changes));
            };
            let mut shown = BTreeMap::new();
            for _ in 0..resume_at { step(&mut map); }
            if resume_at > 0 { shown = alive(&map); }
            let mut cursor = map.view().cursor();
            let mut moves = moves.into_iter();
            let mut passes = 0;
            loop {
                let target = map.view().cursor();
                let Resume::From(from) = map.view().resume(&cursor) else { panic!("lost the cursor") };
                let from = (resume_at > 0 || passes > 0).then_some(from);
                let mut replay = Replay::new(from, None, map.view());
                while !replay.is_done() {
                    hear(&mut shown, replay.next_chunk(map.view()));
                    for _ in 0..moves.next().unwrap_or(0) { step(&mut map); }
                }
                cursor = target;
                passes += 1;
                if cursor == map.view().cursor() { break; }
            }
            prop_assert_eq!(shown, alive(&map));
        }
    }
}
