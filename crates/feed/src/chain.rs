//! Which record of a feed may be delivered next. Pure: no IO and no clock.

use crate::record::{Position, Record};

/// What a follower has received of one feed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chain {
    /// The last record that was delivered.
    held: Option<Position>,
    /// Nothing was delivered yet, and the oldest record of the log comes next, whichever it is.
    open: bool,
    /// The head at the last check, if it was ahead of what had been received.
    awaited: Option<Position>,
}

/// What a head says about the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadCheck {
    /// Nothing is wrong, or nothing is known to be.
    Fine,
    /// The head is neither ahead of the chain nor equal to it. The log says why.
    Differs,
    /// The head was ahead at the last check, and its record has not come since: the subscription is deaf.
    Deaf,
}

/// What is done with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordCheck {
    /// The record is the next one: it is delivered.
    Next,
    /// The record, or one that replaced it, was delivered before: it is dropped.
    Old,
    /// The record does not follow the one that the chain holds: records are missing between, or the history is
    /// another.
    Gap,
}

impl Chain {
    /// Creates a chain that begins at the oldest record of the log.
    pub(crate) fn from_oldest() -> Self {
        Self { held: None, open: true, awaited: None }
    }

    /// Creates a chain that goes on after a position. `None` is the position before the first record of the feed.
    pub(crate) fn after(position: Option<Position>) -> Self {
        Self { held: position, open: false, awaited: None }
    }

    /// Returns the position of the last record that was delivered.
    pub(crate) fn held(&self) -> Option<Position> {
        self.held
    }

    /// Reports whether the oldest record of the log comes next, whatever its number.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// Checks a record, and holds it if it is the next one. A record from the channel cannot begin an open chain:
    /// only the log knows which record is the oldest.
    pub(crate) fn offer(&mut self, record: &Record, from_log: bool) -> RecordCheck {
        let next = record.position;
        let follows = match self.held {
            Some(held)
                if held.epoch == next.epoch && next.seq <= held.seq && next.time_us <= held.time_us =>
            {
                return RecordCheck::Old;
            }
            Some(held) => {
                held.epoch == next.epoch
                    && held.is_followed_by(next.seq)
                    && held.time_us == record.prev_time_us
            }
            None if self.open => from_log,
            None => next.seq == 1 && record.prev_time_us == 0,
        };
        if !follows {
            return RecordCheck::Gap;
        }
        self.held = Some(next);
        self.open = false;
        RecordCheck::Next
    }

    /// Compares a head with what was received.
    pub(crate) fn check_head(&mut self, head: Option<Position>) -> HeadCheck {
        let ahead = match (head, self.held) {
            (None, None) => return HeadCheck::Fine,
            (Some(head), Some(held)) if head == held => None,
            (Some(head), Some(held)) if head.epoch == held.epoch && head.seq > held.seq => Some(head),
            (Some(head), None) => Some(head),
            // The head is behind the chain: a message overtook the answer, or Redis lost something.
            (_, Some(_)) => {
                self.awaited = None;
                return HeadCheck::Differs;
            }
        };
        let is_missing = |awaited: Position| {
            self.held.is_none_or(|held| awaited.epoch != held.epoch || awaited.seq > held.seq)
        };
        let deaf = ahead.is_some() && self.awaited.is_some_and(is_missing);
        self.awaited = if deaf { None } else { ahead };
        if deaf { HeadCheck::Deaf } else { HeadCheck::Fine }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn record(seq: u64, time_us: u64, prev_time_us: u64) -> Record {
        Record { position: Position { epoch: 1, seq, time_us }, prev_time_us, payload: Bytes::new() }
    }

    fn history(n: u64) -> Vec<Record> {
        (1..=n).map(|i| record(i, i * 10, (i - 1) * 10)).collect()
    }

    /// Generates positions as a cursor that a client made up may have them.
    fn any_position() -> impl Strategy<Value = Position> {
        let number = || prop_oneof![Just(0), Just(u64::MAX - 1), Just(u64::MAX), any::<u64>()];
        (0u32..2, number(), number()).prop_map(|(epoch, seq, time_us)| Position { epoch, seq, time_us })
    }

    #[test]
    fn the_same_number_of_another_history_is_a_gap_not_a_duplicate() {
        let mut chain = Chain::after(Some(Position { epoch: 1, seq: 5, time_us: 50 }));
        assert_eq!(chain.offer(&record(5, 55, 40), false), RecordCheck::Gap);
        assert_eq!(chain.offer(&record(6, 66, 55), false), RecordCheck::Gap);
        assert_eq!(chain.offer(&record(6, 60, 50), false), RecordCheck::Next);
    }

    #[test]
    fn a_record_of_another_epoch_is_a_gap() {
        let mut chain = Chain::after(Some(Position { epoch: 2, seq: 5, time_us: 50 }));
        assert_eq!(chain.offer(&record(6, 60, 50), true), RecordCheck::Gap);
    }

    #[test]
    fn only_the_log_may_begin_an_open_chain() {
        let mut chain = Chain::from_oldest();
        assert_eq!(chain.offer(&record(9, 90, 80), false), RecordCheck::Gap);
        assert_eq!(chain.offer(&record(7, 70, 60), true), RecordCheck::Next);
        assert_eq!(chain.offer(&record(8, 80, 70), false), RecordCheck::Next);
    }

    #[test]
    fn before_the_first_record_only_the_first_will_do() {
        let mut chain = Chain::after(None);
        assert_eq!(chain.offer(&record(2, 20, 10), true), RecordCheck::Gap);
        assert_eq!(chain.offer(&record(1, 10, 0), true), RecordCheck::Next);
    }

    #[test]
    fn a_head_that_stays_ahead_means_deaf_ears_and_one_that_is_caught_up_with_does_not() {
        let at = |seq: u64| Position { epoch: 1, seq, time_us: seq * 10 };
        let mut chain = Chain::after(Some(at(5)));
        assert_eq!(chain.check_head(Some(at(5))), HeadCheck::Fine);
        assert_eq!(chain.check_head(Some(at(6))), HeadCheck::Fine, "its message may be on its way");
        assert_eq!(chain.offer(&record(6, 60, 50), false), RecordCheck::Next);
        assert_eq!(chain.check_head(Some(at(7))), HeadCheck::Fine, "another one");
        assert_eq!(chain.check_head(Some(at(7))), HeadCheck::Deaf);
        assert_eq!(chain.check_head(Some(at(4))), HeadCheck::Differs);
        assert_eq!(chain.check_head(Some(Position { epoch: 2, ..at(9) })), HeadCheck::Differs);
        assert_eq!(chain.check_head(None), HeadCheck::Differs);
        assert_eq!(Chain::from_oldest().check_head(None), HeadCheck::Fine);
    }

    proptest! {
        #[test]
        fn no_position_overflows(held in any_position(), next in any_position(), prev_time_us: u64) {
            let record = Record { position: next, prev_time_us, payload: Bytes::new() };
            let mut chain = Chain::after(Some(held));
            chain.offer(&record, false);
            chain.check_head(Some(next));
        }

        /// Loses, doubles and reorders records in any way, and refills each gap from the log.
        #[test]
        fn any_mishap_with_refills_delivers_the_history(
            heard in proptest::collection::vec(0usize..40, 0..200), start in 0u64..20,
        ) {
            let log = history(40);
            let held = (start > 0).then(|| log[start as usize - 1].position);
            let mut chain = Chain::after(held);
            let mut delivered = Vec::new();
            for at in heard.into_iter().chain([39]) {
                match chain.offer(&log[at], false) {
                    RecordCheck::Next => delivered.push(log[at].position.seq),
                    RecordCheck::Old => {}
                    RecordCheck::Gap => {
                        let from = chain.held().map_or(0, |p| p.seq as usize);
                        for record in &log[from..=at] {
                            prop_assert_eq!(chain.offer(record, true), RecordCheck::Next);
                            delivered.push(record.position.seq);
                        }
                    }
                }
            }
            prop_assert_eq!(delivered, (start + 1..=40).collect::<Vec<_>>());
        }
    }
}
