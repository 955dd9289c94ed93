//! The status of the feeds that a stream shows: whether news arrives from them.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use tutti_model::events::STATUS;
use tutti_sse::events::Events;

/// Silence after which a feed is stale. Ingest and queue write to each feed once a second.
const STALE_AFTER: Duration = Duration::from_secs(5);

/// Whether news arrives from the feeds of a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// News arrives.
    Live,
    /// No news has arrived since `since_ms` (milliseconds since 1970, by the time of the feeds); `None` if the time is
    /// not known.
    Stale { since_ms: Option<i64> },
    /// `records` lie in Kafka and cannot be read yet, since about `since_ms` (milliseconds since 1970). News may arrive
    /// beside them.
    HeldBack { since_ms: Option<i64>, records: u64 },
}

impl Status {
    /// Appends the event `status` with this status.
    pub(crate) fn write(self, events: &mut Events) {
        match self {
            Self::Live => events.event(STATUS, r#"{"state":"live"}"#),
            Self::Stale { since_ms } => {
                events.event(STATUS, &format!(r#"{{"state":"stale","since":{}}}"#, json!(since_ms)))
            }
            Self::HeldBack { since_ms, records } => {
                let since = json!(since_ms);
                events.event(STATUS, &format!(r#"{{"state":"stale","since":{since},"lag":{records}}}"#))
            }
        };
    }

    /// Returns since when no news has arrived, in milliseconds since 1970, if that is known.
    fn since_ms(self) -> Option<i64> {
        match self {
            Self::Live => None,
            Self::Stale { since_ms } | Self::HeldBack { since_ms, .. } => since_ms,
        }
    }
}

/// What arrived last from a feed, and when.
#[derive(Clone, Copy, Debug)]
struct Heard {
    /// When it arrived, by the clock of this edge.
    at: Instant,
    /// The time of the newest record, in milliseconds since 1970, if records have one that counts.
    record_ms: Option<i64>,
}

/// Decides the [`Status`] from when something arrived last from each feed of a follower. A feed that has never brought
/// anything does not count, because nobody misses it.
#[derive(Debug)]
pub(crate) struct Liveness {
    /// What arrived last from each feed; `None` if nothing has arrived.
    feeds: Vec<Option<Heard>>,
    /// Number of records of each feed that lie in Kafka and cannot be read yet.
    held_back: Vec<u64>,
    /// The status that was returned last.
    status: Status,
}

impl Liveness {
    /// Returns the liveness of this many feeds, from which nothing has arrived yet.
    pub(crate) fn new(feeds: usize) -> Self {
        let status = Status::Stale { since_ms: None };
        Self { feeds: vec![None; feeds], held_back: vec![0; feeds], status }
    }

    /// Notes that something arrived from a feed: a record of this time, in milliseconds since 1970, or a sign of life.
    pub(crate) fn hear(&mut self, feed: usize, record_ms: Option<i64>, now: Instant) {
        self.feeds[feed] = Some(Heard { at: now, record_ms });
    }

    /// Notes how many records of a feed lie in Kafka and cannot be read yet.
    pub(crate) fn hold_back(&mut self, feed: usize, records: u64) {
        self.held_back[feed] = records;
    }

    /// Forgets that anything has arrived, because another history begins. The time since when no news arrives stays.
    pub(crate) fn forget(&mut self) {
        self.feeds.fill(None);
    }

    /// Returns the status at `now`. While no news arrives, the time since when stays the same.
    pub(crate) fn status(&mut self, now: Instant) -> Status {
        let heard = || self.feeds.iter().flatten();
        let lasts = |since_ms| self.status.since_ms().or(since_ms);
        let quiet = || heard().filter(|heard| now - heard.at >= STALE_AFTER);
        let records = self.held_back.iter().fold(0, |sum: u64, records| sum.saturating_add(*records));
        self.status = if records > 0 {
            let oldest_ms = heard().filter_map(|heard| heard.record_ms).min();
            Status::HeldBack { since_ms: lasts(oldest_ms), records }
        } else if heard().next().is_none() {
            Status::Stale { since_ms: lasts(None) }
        } else if quiet().next().is_none() {
            Status::Live
        } else {
            Status::Stale { since_ms: lasts(quiet().filter_map(|heard| heard.record_ms).min()) }
        };
        self.status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_that_falls_silent_is_stale_since_its_newest_record() {
        let (mut liveness, start) = (Liveness::new(3), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(liveness.status(start), Status::Stale { since_ms: None }, "nothing has arrived");
        liveness.hear(0, Some(1000), at(0));
        liveness.hear(1, Some(2000), at(4));
        assert_eq!(liveness.status(at(4)), Status::Live, "the third feed was never used");
        assert_eq!(liveness.status(at(5)), Status::Stale { since_ms: Some(1000) });
        assert_eq!(liveness.status(at(60)), Status::Stale { since_ms: Some(1000) }, "since the same time");
        liveness.hear(0, Some(61_000), at(61));
        liveness.hear(1, Some(61_000), at(61));
        assert_eq!(liveness.status(at(61)), Status::Live);
    }

    #[test]
    fn records_that_cannot_be_read_are_told_also_while_others_arrive() {
        let (mut liveness, start) = (Liveness::new(2), Instant::now());
        liveness.hear(0, Some(1000), start);
        liveness.hold_back(0, 3);
        liveness.hold_back(1, 4);
        let held_back = Status::HeldBack { since_ms: Some(1000), records: 7 };
        assert_eq!(liveness.status(start), held_back);
        liveness.hear(0, Some(9000), start);
        assert_eq!(liveness.status(start), held_back, "since the same time");
        liveness.hold_back(0, u64::MAX);
        assert_eq!(liveness.status(start), Status::HeldBack { since_ms: Some(1000), records: u64::MAX });
        liveness.hold_back(0, 0);
        liveness.hold_back(1, 0);
        assert_eq!(liveness.status(start), Status::Live);
    }

    #[test]
    fn another_history_is_stale_until_it_brings_something() {
        let (mut liveness, start) = (Liveness::new(1), Instant::now());
        liveness.hear(0, Some(1000), start);
        let later = start + STALE_AFTER;
        assert_eq!(liveness.status(later), Status::Stale { since_ms: Some(1000) });
        liveness.forget();
        assert_eq!(liveness.status(later), Status::Stale { since_ms: Some(1000) });
        liveness.hear(0, None, later);
        assert_eq!(liveness.status(later), Status::Live);
    }
}
