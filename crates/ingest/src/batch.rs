//! Many records: what one append takes to Redis.

use tutti_model::time::is_plausible;

use crate::record::RawRecord;

/// A batch holds at most this many records,
pub(crate) const MAX_RECORDS: usize = 512;
/// and is full once its keys and values reach this many bytes.
pub(crate) const MAX_BYTES: usize = 256 * 1024;

/// Consecutive records of one partition on their way to one append. `P` is what a sink stores of a record. A record that
/// is rejected or stale has no part, and only moves the position.
#[derive(Debug)]
pub(crate) struct Batch<P> {
    /// The partition's position before the batch.
    from: i64,
    /// The partition's position after the batch.
    to: i64,
    parts: Vec<(i64, P)>,
    /// Offset and Kafka timestamp of every record, also of those without a part.
    records: Vec<(i64, Option<i64>)>,
    bytes: usize,
}

impl<P> Batch<P> {
    /// Makes an empty batch of a partition that stands at `from`.
    pub(crate) fn new(from: i64) -> Self {
        Self { from, to: from, parts: Vec::new(), records: Vec::new(), bytes: 0 }
    }

    /// Returns the partition's position before the batch.
    pub(crate) fn from(&self) -> i64 {
        self.from
    }

    /// Returns the partition's position after the batch.
    pub(crate) fn to(&self) -> i64 {
        self.to
    }

    /// Returns the number of records, also of those without a part.
    pub(crate) fn records(&self) -> usize {
        self.records.len()
    }

    /// Returns the parts, in the order of their records.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &P> {
        self.parts.iter().map(|(_, part)| part)
    }

    /// Returns the age of each record at `now_ms` in seconds, by its Kafka timestamp. Records without a plausible
    /// timestamp are left out.
    pub(crate) fn ages(&self, now_ms: i64) -> impl Iterator<Item = f64> {
        let written = self.records.iter().filter_map(|(_, at)| at.filter(|at| is_plausible(*at)));
        written.map(move |at| now_ms.saturating_sub(at).max(0) as f64 / 1000.0)
    }

    /// Returns whether no more records should be added.
    pub(crate) fn is_full(&self) -> bool {
        self.records.len() >= MAX_RECORDS || self.bytes >= MAX_BYTES
    }

    /// Adds a record, and its part if it has one.
    pub(crate) fn push(&mut self, record: &RawRecord<'_>, part: Option<P>) {
        debug_assert!(record.offset >= self.to, "offsets grow");
        self.to = record.offset + 1;
        self.bytes += record.value.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len);
        self.records.push((record.offset, record.timestamp_ms));
        self.parts.extend(part.map(|part| (record.offset, part)));
    }

    /// Drops the records before `position`, which Redis has already. Returns how many these were.
    pub(crate) fn skip_to(&mut self, position: i64) -> usize {
        let before = self.records.len();
        self.records.retain(|(offset, _)| *offset >= position);
        self.parts.retain(|(offset, _)| *offset >= position);
        self.from = position;
        self.to = self.to.max(position);
        before - self.records.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::fixtures::{NOW, raw};
    use proptest::prelude::*;

    #[test]
    fn an_age_is_told_only_of_records_with_a_time_in_milliseconds() {
        let mut batch = Batch::<()>::new(0);
        let timestamps = [i64::MIN, NOW / 1000, NOW - 1500, NOW + 500, i64::MAX].map(Some);
        for (offset, timestamp_ms) in timestamps.into_iter().chain([None]).enumerate() {
            batch.push(&RawRecord { offset: offset as i64, timestamp_ms, ..raw(None) }, None);
        }
        assert_eq!(batch.ages(NOW).collect::<Vec<_>>(), [1.5, 0.0]);
    }

    proptest! {
        #[test]
        fn no_number_from_outside_overflows(of_record: Option<i64>, now_ms: i64, offset in 0..i64::MAX) {
            let mut batch = Batch::<Vec<u8>>::new(0);
            batch.push(&RawRecord { offset, timestamp_ms: of_record, ..raw(None) }, None);
            prop_assert!(batch.ages(now_ms).all(|age| age >= 0.0));
        }
    }

    #[test]
    fn a_batch_that_was_there_in_part_goes_on_with_the_rest() {
        let mut batch = Batch::new(10);
        for offset in [10, 11, 14, 15] {
            batch.push(&RawRecord { offset, ..raw(None) }, Some("part"));
        }
        assert_eq!((batch.from(), batch.to(), batch.records()), (10, 16, 4));
        assert_eq!(batch.skip_to(12), 2);
        assert_eq!((batch.from(), batch.to(), batch.records()), (12, 16, 2));
        assert_eq!(batch.parts().count(), 2);
        assert_eq!(batch.skip_to(20), 2);
        assert_eq!((batch.from(), batch.to()), (20, 20));
        assert_eq!(batch.parts().count(), 0);
    }

    #[test]
    fn a_batch_is_full_by_records_or_by_bytes() {
        let mut batch = Batch::<()>::new(0);
        for offset in 0..MAX_RECORDS as i64 {
            assert!(!batch.is_full());
            batch.push(&RawRecord { offset, ..raw(None) }, None);
        }
        assert!(batch.is_full());
        let mut batch = Batch::<()>::new(0);
        batch.push(&raw(Some(&"x".repeat(MAX_BYTES))), None);
        assert!(batch.is_full());
    }
}
