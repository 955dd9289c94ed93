//! How one stream of a topic gets from what its client has received to the newest step, one write at a time. It does no
//! IO and has no clock.

use bytes::Bytes;
use tokio::time::Instant;
use tutti_model::events::ResetReason;
use tutti_sse::events::Events;

use crate::following::cursor_wait::CursorWait;
use crate::following::next_write::NextWrite;
use crate::following::reset::write_reset;
use crate::following::status::Status;
use crate::metrics::Metrics;
use crate::topics::follower::TopicStep;
use crate::topics::state::{EventPosition, Resume};

/// Bytes, roughly, that are written at once to a stream that is behind.
const CHUNK_BYTES: usize = 16 * 1024;

/// Where the stream of a listener starts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StartAt {
    /// With the next record.
    Now,
    /// After what the client has received, perhaps from another edge.
    After(EventPosition),
    /// With a reset, and then all records that are kept, because what the client has received is unknown or void.
    Lost(ResetReason),
    /// With all records that are kept.
    Oldest,
}

/// The way of one stream to the newest step of its topic.
pub(crate) struct TopicCatchUp {
    from: StartAt,
    /// The key whose events alone the client receives; `None` for all events.
    key: Option<Bytes>,
    /// The generation of `from`; `None` if `from` is what the client came with.
    generation: Option<u64>,
    /// The status that the client received last.
    status: Option<Status>,
    wait: CursorWait,
}

impl TopicCatchUp {
    /// The way of a stream that starts at `from`, with the events of `key` alone unless it is `None`.
    pub(crate) fn new(from: StartAt, key: Option<Bytes>) -> Self {
        Self { from, key, generation: None, status: None, wait: CursorWait::default() }
    }

    /// Returns the key whose events alone the client receives.
    pub(crate) fn key(&self) -> Option<&Bytes> {
        self.key.as_ref()
    }

    /// Notes that the client has received everything up to `place`, or is about to.
    pub(crate) fn note(&mut self, place: EventPosition) {
        self.from = StartAt::After(place);
    }

    /// Returns what the stream does next, given the newest step of its topic, if there is one yet.
    pub(crate) fn next(&mut self, step: Option<&TopicStep>, now: Instant, metrics: &Metrics) -> NextWrite {
        let mut events = Events::default();
        let Some(step) = step else { return self.wait(now) };
        if self.generation.is_some_and(|generation| generation != step.generation) {
            self.from = StartAt::Lost(step.reset_reason);
        }
        let newest = EventPosition::after(step.view.position());
        // Whether the client receives an id although there may be no event: without one it could not come back.
        let mut needs_id = true;
        let start = match self.from {
            StartAt::Now => None,
            StartAt::Oldest => {
                needs_id = false;
                Some((0, 0))
            }
            StartAt::Lost(reason) => {
                write_reset(reason, &mut events, metrics);
                Some((0, 0))
            }
            StartAt::After(place) => match step.view.resume(place) {
                Resume::From(index, received) => {
                    needs_id = false;
                    Some((index, received))
                }
                Resume::TooOld => {
                    write_reset(ResetReason::TooOld, &mut events, metrics);
                    Some((0, 0))
                }
                Resume::Unknown if !self.wait.is_over(step.polls, step.view.reaches(step.head)) => {
                    return self.wait(now);
                }
                Resume::Unknown => {
                    write_reset(ResetReason::UnknownId, &mut events, metrics);
                    Some((0, 0))
                }
            },
        };
        self.generation = Some(step.generation);
        if self.status.replace(step.status) != Some(step.status) {
            step.status.write(&mut events);
        }
        let rest = start.and_then(|(index, received)| self.write_entries(step, index, received, &mut events));
        if needs_id && rest.is_none() {
            events.id(&newest.to_text());
        }
        self.from = StartAt::After(rest.unwrap_or(newest));
        if events.is_empty() && rest.is_none() { NextWrite::Arrived } else { NextWrite::Write(events) }
    }

    /// Appends about [`CHUNK_BYTES`] of the entries from `index` on, the first without its first `received` events.
    /// Returns the place of the last entry that was appended; `None` if it was the newest.
    fn write_entries(
        &self,
        step: &TopicStep,
        index: usize,
        mut received: usize,
        events: &mut Events,
    ) -> Option<EventPosition> {
        let mut bytes = 0;
        for entry in &step.view.from(index) {
            let text = entry.text(received, self.key.as_deref());
            bytes += text.len();
            events.append(&text);
            received = 0;
            if bytes >= CHUNK_BYTES {
                return Some(EventPosition::after(Some(entry.position)));
            }
        }
        None
    }

    /// Waits for the next step. After a while the client receives the status `stale`.
    fn wait(&mut self, now: Instant) -> NextWrite {
        let (until, events) = self.wait.wait(now, &mut self.status);
        if events.is_empty() { NextWrite::Wait(until) } else { NextWrite::Write(events) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::registry::Registry;
    use tutti_feed::Position;

    use super::*;
    use crate::topics::state::TopicView;
    use crate::topics::state::tests::record;

    const LIVE: &str = "event: status\ndata: {\"state\":\"live\"}\n\n";

    /// A step of a topic that is live and has had no reset, whose records have these values.
    fn step(records: &[&[&str]]) -> TopicStep {
        let mut view = TopicView::default();
        for (values, seq) in records.iter().zip(1..) {
            view.push(&record(seq, values), 1 << 20);
        }
        let (head, reset_reason) = (view.position(), ResetReason::Start);
        TopicStep { generation: 0, reset_reason, view, status: Status::Live, head, polls: 0 }
    }

    fn place(seq: u64) -> EventPosition {
        EventPosition::after(Some(Position { epoch: 1, seq, time_us: seq * 10 }))
    }

    fn id(seq: u64) -> String {
        format!("id: {}\n", place(seq).to_text())
    }

    /// What a stream writes until it has arrived at a step, each write by itself.
    fn writes(catch_up: &mut TopicCatchUp, step: &TopicStep) -> Vec<String> {
        let metrics = Metrics::new(&mut Registry::default());
        let mut written = Vec::new();
        loop {
            match catch_up.next(Some(step), Instant::now(), &metrics) {
                NextWrite::Write(events) => written.push(events.into_text()),
                NextWrite::Arrived => return written,
                NextWrite::Wait(_) => panic!("it waits after {written:?}"),
            }
            assert!(written.len() < 1000, "it never arrives");
        }
    }

    fn text(from: StartAt, step: &TopicStep) -> String {
        writes(&mut TopicCatchUp::new(from, None), step).concat()
    }

    #[test]
    fn a_new_client_gets_an_id_to_come_back_with_and_no_event() {
        let text = text(StartAt::Now, &step(&[&["a1"], &["a2"]]));
        assert_eq!(text, format!("event: status\ndata: {{\"state\":\"live\"}}\n{}\n", id(2)));
    }

    #[test]
    fn a_client_that_comes_back_gets_what_it_lacks_also_within_a_record() {
        let step = step(&[&["a1", "b1", "a2"], &["a3"]]);
        let within = EventPosition { events: Some(1), ..place(1) };
        let text = text(StartAt::After(within), &step);
        let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(data, [r#"{"state":"live"}"#, "b1", "a2", "a3"]);
        let nothing = writes(&mut TopicCatchUp::new(StartAt::After(place(2)), None), &step);
        assert_eq!(nothing, [LIVE], "it has everything, and its own id");
    }

    #[test]
    fn a_client_whose_id_is_no_id_gets_a_reset_and_everything() {
        let text = text(StartAt::Lost(ResetReason::Incomplete), &step(&[&["a1"], &["a2"]]));
        assert!(text.starts_with("event: reset\ndata: {\"reason\":\"incomplete\"}\nid: 0\n\n"), "{text}");
        assert!(text.contains("data: a1\n") && text.ends_with(&format!("{}\n", id(2))), "{text}");
    }

    #[test]
    fn a_place_ahead_of_this_edge_is_waited_for_until_two_polls_have_not_shown_it() {
        let metrics = Metrics::new(&mut Registry::default());
        let mut catch_up = TopicCatchUp::new(StartAt::After(place(3)), None);
        let mut behind = step(&[&["a1"], &["a2"]]);
        let now = Instant::now();
        for polls in 0..2 {
            behind.polls = polls;
            assert!(matches!(catch_up.next(Some(&behind), now, &metrics), NextWrite::Wait(_)), "{polls}");
        }
        let later = now + Duration::from_secs(3);
        let NextWrite::Write(events) = catch_up.next(Some(&behind), later, &metrics) else {
            panic!("the wait has lasted long enough to say so")
        };
        assert_eq!(events.into_text(), "event: status\ndata: {\"state\":\"stale\",\"since\":null}\n\n");
        let caught_up = writes(&mut catch_up, &step(&[&["a1"], &["a2"], &["a3"], &["a4"]])).concat();
        assert!(caught_up.contains("data: a4") && !caught_up.contains("data: a3"), "{caught_up}");

        let mut catch_up = TopicCatchUp::new(StartAt::After(place(3)), None);
        assert!(matches!(catch_up.next(Some(&step(&[&["a1"]])), now, &metrics), NextWrite::Wait(_)));
        behind.polls = 2;
        let text = writes(&mut catch_up, &behind).concat();
        assert!(text.starts_with("event: reset\ndata: {\"reason\":\"unknown_id\"}"), "{text}");
    }

    #[test]
    fn another_generation_is_a_reset_with_its_reason() {
        let mut catch_up = TopicCatchUp::new(StartAt::Now, None);
        writes(&mut catch_up, &step(&[&["a1"]]));
        let mut next = step(&[&["b1"]]);
        (next.generation, next.reset_reason) = (1, ResetReason::NewEpoch);
        let text = writes(&mut catch_up, &next).concat();
        assert!(text.starts_with("event: reset\ndata: {\"reason\":\"new_epoch\"}"), "{text}");
        assert!(text.contains("data: b1\n"), "{text}");
    }

    #[test]
    fn a_long_way_is_written_in_parts_and_nothing_is_left_out_or_twice() {
        let values: Vec<String> = (0..100).map(|n| format!("{n:03}{}", "x".repeat(1000))).collect();
        let records: Vec<[&str; 1]> = values.iter().map(|value| [value.as_str()]).collect();
        let records: Vec<&[&str]> = records.iter().map(|values| &values[..]).collect();
        let step = step(&records);
        let written = writes(&mut TopicCatchUp::new(StartAt::Oldest, None), &step);
        assert!((5..=8).contains(&written.len()), "{} writes", written.len());
        let text = written.concat();
        let received =
            text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| data.len() > 100);
        assert!(received.eq(values.iter().map(String::as_str)));
    }

    #[test]
    fn a_client_of_one_key_gets_the_events_of_that_key_alone() {
        let step = step(&[&["a1", "b1"], &["b2"], &["a2"]]);
        let key = Some(Bytes::from_static(b"b"));
        let text = writes(&mut TopicCatchUp::new(StartAt::Oldest, key), &step).concat();
        let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(data, [r#"{"state":"live"}"#, "b1", "b2"]);
    }
}
