//! Records that an open transaction holds back.

/// How many records of one partition an open transaction holds back. Consumers read only committed records, so the
/// oldest open transaction holds back all records from its first one on, also those of other producers. That offset is
/// the partition's *last stable offset*.
#[derive(Debug, Default)]
pub(crate) struct HeldBack {
    /// First offset of the oldest transaction that was open at the last observation.
    open_since: Option<i64>,
    /// Records from there on, if the same transaction was open at the last two observations. One observation alone
    /// may fall on a transaction that ends in a moment.
    records: i64,
}

impl HeldBack {
    /// Takes the newest last stable offset and end of the partition, which are negative while unknown. Returns whether
    /// the partition began or ceased to be held back.
    pub(crate) fn observe(&mut self, last_stable_offset: i64, end: i64) -> bool {
        let before = self.records > 0;
        let open = (last_stable_offset >= 0 && last_stable_offset < end).then_some(last_stable_offset);
        let is_same = open.is_some() && open == self.open_since;
        self.records = if is_same { end - last_stable_offset } else { 0 };
        self.open_since = open;
        before != (self.records > 0)
    }

    /// Returns how many records were held back at the last observation.
    pub(crate) fn records(&self) -> i64 {
        self.records
    }

    /// Returns how many records are held back from a reader that has reached `position`. A reader past the first offset
    /// of the transaction shows that the transaction has ended since the last observation.
    pub(crate) fn behind(&self, position: i64) -> u64 {
        let is_open = self.open_since.is_some_and(|since| position <= since);
        if is_open { self.records.max(0) as u64 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_held_back_while_the_stable_end_stands_before_the_end() {
        let mut held_back = HeldBack::default();
        assert!(!held_back.observe(-1001, -1001), "nothing was fetched yet");
        assert!(!held_back.observe(10, 15), "it may be a transaction that ends in a moment");
        assert!(held_back.observe(10, 20));
        assert_eq!(held_back.records(), 10);
        assert_eq!([9, 10].map(|position| held_back.behind(position)), [10, 10]);
        assert_eq!(held_back.behind(11), 0, "the transaction has ended");
        assert!(!held_back.observe(10, 21), "it was so before");
        assert_eq!(held_back.records(), 11);
        assert!(held_back.observe(12, 21), "another transaction");
        assert_eq!(held_back.records(), 0);
        assert!(!held_back.observe(21, 21));
        assert!(!held_back.observe(21, 21));
        assert!(!held_back.observe(21, 22), "it began after the last observation");
        assert_eq!(held_back.records(), 0);
        assert!(held_back.observe(21, 22));
    }
}
