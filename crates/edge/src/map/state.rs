//! The state of the live map: a pure fold over the records of its feeds.
//!
//! Each mediaId has one entry: the newest fix, or a tombstone, which is kept for as long as clients may come back and
//! need the removal. Time is the time of the records; nothing here reads a clock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use prost::Message as _;
use tutti_feed::{Position, Record};
use tutti_model::location::MAX_AHEAD_MS;
use tutti_model::{Locations, change};

use crate::map::area::WorldPoint;
use crate::map::entry::{Entry, MediaId};
use crate::map::view::MapView;

/// Effects of one record other than changed entries.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Whether the record says that something is missing in Kafka. Clients need a reset.
    pub(crate) gap: bool,
    /// Whether the payload, or one of its changes, is of a kind that this version cannot read.
    pub(crate) unreadable: bool,
}

/// The state of the live map after the records that were applied.
#[derive(Debug)]
pub(crate) struct MapState {
    view: MapView,
    stale_after_ms: i64,
    /// Longest time that a fix may be on the map, in microseconds: `stale_after`, and as much as a timestamp may be
    /// ahead of the record's time.
    life_us: u64,
    /// Maximum age in microseconds of a cursor from which a client can resume.
    remember_us: u64,
    /// Time in microseconds after which tombstones are removed. The logs keep records for the same time.
    log_age_us: u64,
    /// For each shard, the times in milliseconds at which fixes become stale, soonest first.
    stale_at: Vec<BinaryHeap<Reverse<(i64, MediaId)>>>,
    /// For each shard, the time, record number and mediaId of each tombstone, oldest first.
    tombstones: Vec<VecDeque<(u64, u64, MediaId)>>,
    /// What [`MapState::take_changed`] returns next.
    changed: BTreeMap<MediaId, Option<WorldPoint>>,
}

impl MapState {
    /// Creates an empty map. `log_age` is the time for which the logs keep records. Cursors are remembered for
    /// `log_age` less the longest life of a fix, so that an edge that has just read the logs knows all that any other
    /// edge knows.
    pub(crate) fn new(shards: usize, stale_after: Duration, log_age: Duration) -> Self {
        let life = stale_after + Duration::from_millis(MAX_AHEAD_MS as u64);
        Self {
            view: MapView::new(shards),
            stale_after_ms: stale_after.as_millis() as i64,
            log_age_us: log_age.as_micros() as u64,
            life_us: life.as_micros() as u64,
            remember_us: log_age.saturating_sub(life).as_micros() as u64,
            stale_at: vec![BinaryHeap::new(); shards],
            tombstones: vec![VecDeque::new(); shards],
            changed: BTreeMap::new(),
        }
    }

    pub(crate) fn view(&self) -> &MapView {
        &self.view
    }

    /// Returns the mediaIds whose entries changed since the last call, and where each was on the map at that call.
    pub(crate) fn take_changed(&mut self) -> BTreeMap<MediaId, Option<WorldPoint>> {
        std::mem::take(&mut self.changed)
    }

    /// Applies the next record of a shard.
    pub(crate) fn apply(&mut self, shard: usize, record: &Record) -> Applied {
        let Position { seq, time_us, .. } = record.position;
        let now_ms = (time_us / 1000) as i64;
        self.view.shards[shard].advance(record, self.life_us, self.remember_us);
        let mut applied = Applied::default();
        match Locations::decode(record.payload.clone()) {
            Err(_) => applied.unreadable = true,
            Ok(locations) => {
                for change in locations.changes {
                    match change.change {
                        None => applied.unreadable = true,
                        Some(change::Change::Gap(_)) => {
                            applied.gap = true;
                            self.view.shards[shard].gap = seq;
                        }
                        Some(change::Change::Fix(fix)) => {
                            if fix.timestamp_ms > now_ms.saturating_sub(self.stale_after_ms) {
                                let entry = Entry::fix(&fix, shard, seq);
                                self.put(fix.media_id.into(), entry, time_us);
                            }
                        }
                        Some(change::Change::Removal(r)) => {
                            let id: MediaId = r.media_id.into();
                            let entry = Entry::removal(&id, r.timestamp_ms, shard, seq);
                            self.put(id, entry, time_us);
                        }
                    }
                }
            }
        }
        self.drop_stale(shard, seq, time_us);
        self.forget_tombstones(shard, time_us);
        applied
    }

    /// Puts an entry in the place of the one held for its mediaId, unless that one ranks higher.
    fn put(&mut self, id: MediaId, entry: Entry, time_us: u64) {
        let held = self.view.get(&id);
        if let Some(held) = held.filter(|held| held.rank() > entry.rank()) {
            if held.shard != entry.shard && !entry.removed {
                let held = held.elsewhere();
                self.view.put(id, held);
            }
            return;
        }
        let was = held.and_then(|held| held.spot());
        let entry = match held {
            Some(held) => entry.after(held),
            None => entry,
        };
        if entry.removed {
            self.tombstones[entry.shard].push_back((time_us, entry.seq, id.clone()));
        } else {
            let stale_at = entry.timestamp_ms.saturating_add(self.stale_after_ms);
            self.stale_at[entry.shard].push(Reverse((stale_at, id.clone())));
        }
        self.changed.entry(id.clone()).or_insert(was);
        self.view.put(id, entry);
    }

    /// Removes the fixes of a shard that are stale at the time of its record `seq`.
    fn drop_stale(&mut self, shard: usize, seq: u64, time_us: u64) {
        let now_ms = (time_us / 1000) as i64;
        while let Some(Reverse((stale_at, _))) = self.stale_at[shard].peek()
            && *stale_at <= now_ms
        {
            let Some(Reverse((stale_at, id))) = self.stale_at[shard].pop() else { break };
            let Some(held) = self.view.get(&id) else { continue };
            // A newer fix of the same mediaId has its own time in the heap.
            let is_its_own = held.timestamp_ms.saturating_add(self.stale_after_ms) == stale_at;
            if held.removed || held.shard != shard || !is_its_own {
                continue;
            }
            let (entry, was) = (held.grown_stale(&id, seq), held.spot());
            self.tombstones[shard].push_back((time_us, seq, id.clone()));
            self.changed.entry(id.clone()).or_insert(was);
            self.view.put(id, entry);
        }
    }

    /// Removes the tombstones of a shard that are older than the records in its log.
    fn forget_tombstones(&mut self, shard: usize, time_us: u64) {
        let oldest = time_us.saturating_sub(self.log_age_us);
        while let Some((at, _, _)) = self.tombstones[shard].front()
            && *at < oldest
        {
            let Some((_, seq, id)) = self.tombstones[shard].pop_front() else { break };
            if self.view.get(&id).is_some_and(|e| e.removed && e.shard == shard && e.seq == seq) {
                self.view.remove(&id);
                let forgotten = &mut self.view.shards[shard].forgotten;
                *forgotten = seq.max(*forgotten);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::map::view::Resume;
    use bytes::Bytes;
    use proptest::prelude::*;
    use tutti_feed::Cursor;
    use tutti_model::{Change, Fix, Gap, Removal};

    const T0: u64 = 1_700_000_000_000_000;

    pub(crate) fn fix(id: &str, timestamp_ms: i64) -> Change {
        let fix = Fix { media_id: id.into(), timestamp_ms, ..Fix::default() };
        Change { change: Some(change::Change::Fix(fix)) }
    }

    pub(crate) fn removal(id: &str, timestamp_ms: i64) -> Change {
        let removal = Removal { media_id: id.into(), timestamp_ms };
        Change { change: Some(change::Change::Removal(removal)) }
    }

    pub(crate) fn record(seq: u64, time_us: u64, changes: Vec<Change>) -> Record {
        let payload = Bytes::from(Locations { changes }.encode_to_vec());
        Record { position: Position { epoch: 1, seq, time_us }, prev_time_us: time_us - 1, payload }
    }

    pub(crate) fn map(shards: usize) -> MapState {
        MapState::new(shards, Duration::from_secs(30), Duration::from_secs(120))
    }

    fn ms(time_us: u64) -> i64 {
        (time_us / 1000) as i64
    }

    fn alive(map: &MapState) -> BTreeMap<String, i64> {
        map.view
            .after(None)
            .filter(|(_, e)| !e.removed)
            .map(|(id, e)| (id.to_string(), e.timestamp_ms))
            .collect()
    }

    #[test]
    fn the_newest_timestamp_wins_whatever_comes_last() {
        let mut map = map(1);
        map.apply(0, &record(1, T0, vec![fix("a", ms(T0) - 10), fix("a", ms(T0) - 20)]));
        assert_eq!(alive(&map), BTreeMap::from([("a".into(), ms(T0) - 10)]));
    }

    #[test]
    fn at_equal_timestamps_a_fix_holds_against_a_removal() {
        for changes in [[fix("a", ms(T0)), removal("a", ms(T0))], [removal("a", ms(T0)), fix("a", ms(T0))]] {
            let mut map = map(1);
            map.apply(0, &record(1, T0, changes.to_vec()));
            assert_eq!(alive(&map).len(), 1);
        }
        let mut map = map(1);
        map.apply(0, &record(1, T0, vec![removal("a", ms(T0) + 1), fix("a", ms(T0))]));
        assert!(alive(&map).is_empty());
    }

    #[test]
    fn a_fix_goes_when_its_shard_says_that_it_is_stale() {
        let mut map = map(2);
        map.apply(0, &record(1, T0, vec![fix("a", ms(T0))]));
        map.take_changed();
        map.apply(1, &record(1, T0 + 60_000_000, vec![]));
        assert_eq!(alive(&map).len(), 1, "another shard's time does not count");
        map.apply(0, &record(2, T0 + 29_999_000, vec![]));
        assert_eq!(alive(&map).len(), 1);
        map.apply(0, &record(3, T0 + 30_000_000, vec![]));
        assert!(alive(&map).is_empty());
        assert_eq!(map.take_changed(), BTreeMap::from([("a".into(), Some(WorldPoint::of(0.0, 0.0)))]));
        assert_eq!(map.view.get("a").unwrap().seq, 3);
    }

    #[test]
    fn a_tombstone_is_forgotten_when_the_log_is() {
        let mut map = map(1);
        map.apply(0, &record(1, T0, vec![removal("a", ms(T0))]));
        map.apply(0, &record(2, T0 + 120_000_000, vec![]));
        assert!(map.view.get("a").is_some());
        map.apply(0, &record(3, T0 + 120_000_001, vec![]));
        assert!(map.view.get("a").is_none());
    }

    #[test]
    fn a_gap_and_an_unreadable_payload_are_told() {
        let mut map = map(1);
        let gap = Change { change: Some(change::Change::Gap(Gap::default())) };
        assert!(map.apply(0, &record(1, T0, vec![gap])).gap);
        let garbage = Record { payload: Bytes::from_static(b"\xff\xff"), ..record(2, T0 + 1, vec![]) };
        assert!(map.apply(0, &garbage).unreadable);
        assert_eq!(map.view.cursor().0[0].unwrap().seq, 2);
    }

    #[test]
    fn a_cursor_is_resumed_only_within_its_own_history() {
        let mut map = map(1);
        for seq in 1..=100 {
            map.apply(0, &record(seq, T0 + seq * 1_000_000, vec![]));
        }
        let at = |seq: u64, time_us: u64, epoch: u32| {
            map.view.resume(&Cursor(vec![Some(Position { epoch, seq, time_us })]))
        };
        assert_eq!(at(50, T0 + 50_000_000, 1), Resume::From(vec![50]));
        assert_eq!(at(100, T0 + 100_000_000, 1), Resume::From(vec![100]));
        assert_eq!(at(50, T0 + 50_000_001, 1), Resume::Unknown, "the same number of another history");
        assert_eq!(at(50, T0 + 50_000_000, 2), Resume::Unknown, "another epoch");
        assert_eq!(at(101, T0 + 101_000_000, 1), Resume::Unknown, "not yet");
        assert_eq!(at(20, T0 + 20_000_000, 1), Resume::From(vec![20]), "80 s old");
        assert_eq!(at(19, T0 + 19_000_000, 1), Resume::TooOld);
        assert_eq!(map.view.resume(&Cursor(vec![None])), Resume::TooOld, "the beginning is forgotten");
        assert_eq!(map.view.resume(&Cursor(vec![None; 2])), Resume::Unknown, "other shards");
    }

    #[test]
    fn an_edge_whose_log_was_cut_short_resumes_only_what_it_knows() {
        let mut map = map(1);
        for seq in 1001..=1060 {
            map.apply(0, &record(seq, T0 + (seq - 1000) * 1_000_000, vec![]));
            assert_eq!(map.view.incomplete().count(), usize::from(seq < 1041));
        }
        let at =
            |n: u64| Cursor(vec![Some(Position { epoch: 1, seq: 1000 + n, time_us: T0 + n * 1_000_000 })]);
        assert_eq!(map.view.resume(&at(40)), Resume::TooOld, "a removal may have been missed");
        assert_eq!(map.view.resume(&at(41)), Resume::From(vec![1041]));
        assert_eq!(map.view.incomplete().count(), 0, "nothing older than the log can be alive");
    }

    #[test]
    fn who_was_shown_less_than_a_gap_is_not_resumed() {
        let mut map = map(1);
        map.apply(0, &record(1, T0, vec![]));
        let before = map.view.cursor();
        let gap = Change { change: Some(change::Change::Gap(Gap::default())) };
        map.apply(0, &record(2, T0 + 1, vec![gap]));
        assert_eq!(map.view.resume(&before), Resume::TooOld);
        assert_eq!(map.view.resume(&map.view.cursor()), Resume::From(vec![2]));
    }

    #[test]
    fn before_the_first_record_is_a_place_like_any_other() {
        let mut map = map(2);
        let start = map.view.cursor();
        map.apply(0, &record(1, T0, vec![fix("a", ms(T0))]));
        assert_eq!(map.view.resume(&start), Resume::From(vec![0, 0]));
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let one = (0u8..6, 0i64..45_000, any::<bool>()).prop_map(|(id, age, is_fix)| {
            let id = format!("m{id}");
            let timestamp_ms = ms(T0) + 10_000 - age;
            if is_fix { fix(&id, timestamp_ms) } else { removal(&id, timestamp_ms) }
        });
        proptest::collection::vec(one, 0..4)
    }

    proptest! {
        #[test]
        fn no_time_of_a_change_overflows(
            time_ms in prop_oneof![Just(i64::MIN), Just(i64::MAX), any::<i64>()],
            time_us in prop_oneof![Just(1), Just(u64::MAX), 1..=u64::MAX],
        ) {
            let mut map = map(1);
            map.apply(0, &record(2, time_us, vec![fix("a", time_ms), removal("b", time_ms)]));
            map.apply(0, &record(3, u64::MAX, vec![fix("a", time_ms), removal("a", time_ms)]));
        }

        /// The map does not depend on how the records of two shards are interleaved.
        #[test]
        fn the_order_between_shards_does_not_matter(
            first in proptest::collection::vec((changes(), 1u64..20_000_000), 0..8),
            second in proptest::collection::vec((changes(), 1u64..20_000_000), 0..8),
            order in proptest::collection::vec(any::<bool>(), 16),
        ) {
            let records = |parts: &[(Vec<Change>, u64)]| {
                let mut time_us = T0;
                parts.iter().enumerate().map(|(i, (changes, step))| {
                    time_us += step;
                    record(i as u64 + 1, time_us, changes.clone())
                }).collect::<Vec<_>>()
            };
            let (first, second) = (records(&first), records(&second));
            let mut sequential = map(2);
            first.iter().for_each(|r| { sequential.apply(0, r); });
            second.iter().for_each(|r| { sequential.apply(1, r); });

            let mut mixed = map(2);
            let (mut a, mut b) = (first.iter().peekable(), second.iter().peekable());
            let mut order = order.into_iter();
            while a.peek().is_some() || b.peek().is_some() {
                let take_a = b.peek().is_none() || (a.peek().is_some() && order.next().unwrap_or(true));
                if take_a { mixed.apply(0, a.next().unwrap()); } else { mixed.apply(1, b.next().unwrap()); }
            }
            prop_assert_eq!(alive(&mixed), alive(&sequential));
        }

        /// An edge that starts from a log that was trimmed by its age equals one that saw everything.
        #[test]
        fn a_map_from_the_kept_log_equals_the_map_from_all(
            parts in proptest::collection::vec((changes(), 1u64..15_000_000), 1..40),
        ) {
            let mut time_us = T0;
            let records: Vec<Record> = parts.iter().enumerate().map(|(i, (changes, step))| {
                let prev_time_us = time_us;
                time_us += step;
                let mut changes = changes.clone();
                for change in &mut changes {
                    // Timestamps near the record's own time, as ingest lets them through.
                    if let Some(change::Change::Fix(f)) = &mut change.change { f.timestamp_ms += ms(time_us) - ms(T0); }
                    if let Some(change::Change::Removal(r)) = &mut change.change { r.timestamp_ms += ms(time_us) - ms(T0); }
                }
                Record { prev_time_us, ..record(i as u64 + 1, time_us, changes) }
            }).collect();
            let mut whole = map(1);
            records.iter().for_each(|r| { whole.apply(0, r); });
            let oldest = time_us.saturating_sub(120_000_000);
            let mut fresh = map(1);
            records.iter().filter(|r| r.position.time_us >= oldest).for_each(|r| { fresh.apply(0, r); });
            prop_assert_eq!(alive(&fresh), alive(&whole));
            // A client that resumes does not see a difference either.
            for r in &records {
                let cursor = Cursor(vec![Some(r.position)]);
                prop_assert_eq!(fresh.view.resume(&cursor), whole.view.resume(&cursor));
            }
        }
    }
}
