//! The state of one topic in an edge: its newest records, oldest first, ready to be written.

use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use imbl::Vector;
use prost::Message as _;
use tutti_feed::{Cursor, Position, Record};
use tutti_model::{TopicEvent, TopicRecords};

use tutti_model::events::{BASE64_SUFFIX, EMPTY_SUFFIX, NULL_SUFFIX, RESET, ResetReason, reset_data};
use tutti_sse::events::Events;
use tutti_sse::frame::Frame;

/// One record of the feed that has events.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) position: Position,
    /// Time of the record before, in microseconds since 1970.
    prev_time_us: u64,
    events: Vec<EncodedEvent>,
    /// Bytes of memory that the entry counts for.
    bytes: usize,
    /// The frame for clients that receive all keys, encoded once; `None` inside if it would be empty.
    frame: OnceLock<Option<Frame>>,
}

/// One event as it is written to clients.
#[derive(Debug)]
struct EncodedEvent {
    /// The key; `None` for a reset, which all clients receive.
    key: Option<Bytes>,
    text: Events,
}

/// A place in a topic: after a number of events of the record with this position, or after all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventPosition {
    /// The position of the record; `None` before the first.
    pub(crate) position: Option<Position>,
    /// Number of events of the record before the place; `None` for all of them.
    pub(crate) events: Option<usize>,
}

/// The newest records of a topic at one step. Cloning is cheap, because clones share the entries.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopicView {
    /// The kept records that have events, oldest first.
    entries: Vector<Arc<Entry>>,
    /// The position of the newest record, also if it has no events.
    position: Option<Position>,
    /// Sum of the bytes of all entries.
    bytes: usize,
    /// The number of a record. All events of later records are kept.
    whole_after: u64,
}

/// Where a client goes on that comes back with a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    /// From the entry with this index on, without this number of its first events.
    From(usize, usize),
    /// Nowhere yet: the place is not in this history, but records to come may bring it.
    Unknown,
    /// Nowhere: the place is older than what is kept.
    TooOld,
}

impl EventPosition {
    /// Returns the place after all events of a record.
    pub(crate) fn after(position: Option<Position>) -> Self {
        Self { position, events: None }
    }

    /// Returns the text form, which is the SSE `id:`: the cursor, and the number of the event in its record unless that
    /// is the last.
    pub(crate) fn to_text(self) -> String {
        let cursor = Cursor(vec![self.position]).to_text();
        match self.events {
            None => cursor,
            Some(events) => format!("{cursor}.{events}"),
        }
    }

    /// Reads the text form. Returns `None` for anything that [`EventPosition::to_text`] does not write.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (cursor, events) = match text.split_once('.') {
            None => (text, None),
            Some((cursor, events)) => (cursor, Some(events.parse().ok()?)),
        };
        match Cursor::parse(cursor)?.0[..] {
            [position] if events.is_none() || position.is_some() => Some(Self { position, events }),
            _ => None,
        }
    }
}

impl Entry {
    /// Returns the entry of a record; `None` if the record has no events, or none that this version can read.
    fn of(record: &Record) -> Option<Self> {
        let records = TopicRecords::decode(record.payload.clone()).ok()?;
        let count = records.events.len() + usize::from(records.gap.is_some());
        if count == 0 {
            return None;
        }
        let mut number = 0;
        let mut place = || {
            number += 1;
            let events = (number < count).then_some(number);
            EventPosition { position: Some(record.position), events }.to_text()
        };
        let mut events = Vec::with_capacity(count);
        if records.gap.is_some() {
            let mut text = Events::default();
            text.event(RESET, &reset_data(ResetReason::Gap)).id(&place());
            events.push(EncodedEvent { key: None, text });
        }
        for event in records.events {
            let mut text = Events::default();
            write(&event, &mut text);
            text.id(&place());
            // The key is copied, because a slice of the payload would keep all of it in memory.
            events.push(EncodedEvent { key: Some(Bytes::copy_from_slice(&event.key)), text });
        }
        // The text is in memory twice: for clients with a key, and in the frame for all others.
        let size =
            |event: &EncodedEvent| 2 * event.text.len() + event.key.as_ref().map_or(0, Bytes::len) + 160;
        let bytes = events.iter().map(size).sum();
        Some(Self {
            position: record.position,
            prev_time_us: record.prev_time_us,
            events,
            bytes,
            frame: OnceLock::new(),
        })
    }

    /// Returns the frame with all events, for clients that receive all keys; `None` if there are no events.
    pub(crate) fn frame(&self) -> Option<&Frame> {
        self.frame
            .get_or_init(|| {
                let events = self.text(0, None);
                (!events.is_empty()).then(|| events.frame())
            })
            .as_ref()
    }

    /// Returns the events that are left for a client which has received the first `had` of them. With a key, only
    /// events of that key and those without a key are returned.
    pub(crate) fn text(&self, had: usize, key: Option<&[u8]>) -> Events {
        let mut all = Events::default();
        for event in self.events.iter().skip(had) {
            if key.is_none() || event.key.is_none() || event.key.as_deref() == key {
                all.append(&event.text);
            }
        }
        all
    }
}

/// Appends an event with its value: as text if a stream can carry it unchanged, else in base64. A suffix of the name
/// says which, and marks values that are null or empty.
fn write(event: &TopicEvent, events: &mut Events) {
    let name = &event.event;
    let Some(value) = &event.value else {
        events.event(&format!("{name}{NULL_SUFFIX}"), "null");
        return;
    };
    match std::str::from_utf8(value) {
        // A browser drops an event without data.
        Ok("") => events.event(&format!("{name}{EMPTY_SUFFIX}"), "\"\""),
        // Clients read a carriage return in a stream as a line feed.
        Ok(text) if !text.contains('\r') => events.lines(name, text),
        _ => events.event(&format!("{name}{BASE64_SUFFIX}"), &STANDARD.encode(value)),
    };
}

impl TopicView {
    /// Returns the position of the newest record; `None` if there has been none.
    pub(crate) fn position(&self) -> Option<Position> {
        self.position
    }

    /// Whether the view has every record up to this head.
    pub(crate) fn reaches(&self, head: Option<Position>) -> bool {
        head.is_none_or(|head| self.position.is_some_and(|held| held.covers(head)))
    }

    /// Appends the next record, and forgets the oldest while there are more than `max_bytes`. The newest always stays.
    /// Returns whether this version could read the record.
    pub(crate) fn push(&mut self, record: &Record, max_bytes: usize) -> bool {
        if self.position.is_none() {
            self.whole_after = record.position.seq.saturating_sub(1);
        }
        self.position = Some(record.position);
        let Some(entry) = Entry::of(record) else { return record.payload.is_empty() };
        self.bytes += entry.bytes;
        self.entries.push_back(Arc::new(entry));
        while self.bytes > max_bytes && self.entries.len() > 1 {
            if let Some(entry) = self.entries.pop_front() {
                self.bytes -= entry.bytes;
                self.whole_after = entry.position.seq;
            }
        }
        true
    }

    /// Returns the entries from an index on, without walking over those before it.
    pub(crate) fn from(&self, index: usize) -> Vector<Arc<Entry>> {
        self.entries.skip(index.min(self.entries.len()))
    }

    /// Returns the index of the first entry whose record has a number above `seq`.
    fn after(&self, seq: u64) -> usize {
        let next = seq.saturating_add(1);
        self.entries.binary_search_by(|entry| entry.position.seq.cmp(&next)).unwrap_or_else(|at| at)
    }

    /// Returns where a client goes on that was shown everything up to a place. Records without events are not kept, so
    /// a place between two entries can only be compared with the times of its neighbours.
    pub(crate) fn resume(&self, place: EventPosition) -> Resume {
        let (shown, held) = match (place.position, self.position) {
            (None, None) => return Resume::From(0, 0),
            (Some(_), None) => return Resume::Unknown,
            (None, Some(_)) => {
                return if self.whole_after == 0 { Resume::From(0, 0) } else { Resume::TooOld };
            }
            (Some(shown), Some(held)) => (shown, held),
        };
        if !held.covers(shown) {
            return Resume::Unknown;
        }
        let next = self.after(shown.seq);
        if let Some(entry) = next.checked_sub(1).and_then(|at| self.entries.get(at))
            && entry.position.seq == shown.seq
        {
            return match place.events {
                _ if entry.position.time_us != shown.time_us => Resume::Unknown,
                None => Resume::From(next, 0),
                Some(events) => Resume::From(next - 1, events),
            };
        }
        // The record of the place had no events, or is forgotten.
        let before = next.checked_sub(1).and_then(|at| self.entries.get(at));
        let late = self.entries.get(next).is_some_and(|after| after.prev_time_us < shown.time_us)
            || before.is_some_and(|before| before.position.time_us > shown.time_us);
        if shown.seq < self.whole_after {
            Resume::TooOld
        } else if late || place.events.is_some() {
            Resume::Unknown
        } else {
            Resume::From(next, 0)
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A record with one event for each value, whose key is the value's first byte.
    pub(crate) fn record(seq: u64, values: &[&str]) -> Record {
        let events = values.iter().map(|value| TopicEvent {
            key: Bytes::copy_from_slice(&value.as_bytes()[..1]),
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            event: "message".into(),
        });
        let payload = if values.is_empty() {
            Bytes::new()
        } else {
            TopicRecords { events: events.collect(), gap: None }.encode_to_vec().into()
        };
        let position = Position { epoch: 1, seq, time_us: seq * 10 };
        Record { position, prev_time_us: (seq - 1) * 10, payload }
    }

    fn written(event: &TopicEvent) -> String {
        let mut events = Events::default();
        write(event, &mut events);
        events.into_text()
    }

    fn with_value(value: Option<&[u8]>) -> TopicEvent {
        TopicEvent { key: Bytes::new(), value: value.map(Bytes::copy_from_slice), event: "a".into() }
    }

    #[test]
    fn any_value_has_a_form_that_a_stream_can_carry() {
        assert_eq!(written(&with_value(Some(b"x"))), "event: a\ndata: x\n\n");
        assert_eq!(
            written(&with_value(Some("ä|\u{1f600}\0".as_bytes()))),
            "event: a\ndata: ä|\u{1f600}\0\n\n"
        );
        assert_eq!(written(&with_value(Some(b"x\n\ny\n"))), "event: a\ndata: x\ndata: \ndata: y\ndata: \n\n");
        assert_eq!(written(&with_value(Some(b"x\ry"))), "event: a.base64\ndata: eA15\n\n");
        assert_eq!(written(&with_value(Some(&[0xff]))), "event: a.base64\ndata: /w==\n\n");
        assert_eq!(written(&with_value(Some(b""))), "event: a.empty\ndata: \"\"\n\n");
        assert_eq!(written(&with_value(None)), "event: a.null\ndata: null\n\n");
    }

    #[test]
    fn a_client_goes_on_after_each_event_also_in_the_midst_of_a_record() {
        let mut view = TopicView::default();
        view.push(&record(1, &["a1", "b1", "a2"]), 1 << 20);
        view.push(&record(2, &[]), 1 << 20);
        view.push(&record(3, &["a3"]), 1 << 20);
        let at = |seq: u64, events| EventPosition {
            position: Some(Position { epoch: 1, seq, time_us: seq * 10 }),
            events,
        };
        assert_eq!(view.resume(EventPosition::after(None)), Resume::From(0, 0));
        assert_eq!(view.resume(at(1, Some(2))), Resume::From(0, 2));
        assert_eq!(view.resume(at(1, None)), Resume::From(1, 0));
        assert_eq!(view.resume(at(2, None)), Resume::From(1, 0), "an empty record is a place, too");
        assert_eq!(view.resume(at(3, None)), Resume::From(2, 0));
        assert_eq!(view.resume(at(4, None)), Resume::Unknown);
        let of_another_history = Position { epoch: 1, seq: 3, time_us: 31 };
        assert_eq!(view.resume(EventPosition::after(Some(of_another_history))), Resume::Unknown);
        let text = view.entries[0].text(1, Some(b"a")).into_text();
        assert!(text.starts_with("event: message\ndata: a2\nid: ") && !text.contains("b1"), "{text}");
    }

    #[test]
    fn what_was_forgotten_is_too_old() {
        let mut view = TopicView::default();
        for seq in 1..=10 {
            view.push(&record(seq, &["x"]), 400);
        }
        let first = view.entries.front().unwrap().position.seq;
        assert!(first > 2);
        let place = |seq: u64| EventPosition::after(Some(Position { epoch: 1, seq, time_us: seq * 10 }));
        assert_eq!(view.resume(place(first - 2)), Resume::TooOld);
        assert_eq!(view.resume(place(first - 1)), Resume::From(0, 0));
        assert_eq!(view.resume(EventPosition::after(None)), Resume::TooOld);
    }

    #[test]
    fn the_id_of_an_event_is_the_one_that_earlier_versions_wrote() {
        let position = Some(Position { epoch: 0x0102_0304, seq: 300, time_us: 1_800_000_000_000_001 });
        for (text, place) in [
            ("AA", EventPosition { position: None, events: None }),
            ("AQECAwSsAoGA4sTyopkD", EventPosition { position, events: None }),
            ("AQECAwSsAoGA4sTyopkD.12", EventPosition { position, events: Some(12) }),
        ] {
            assert_eq!(place.to_text(), text);
            assert_eq!(EventPosition::parse(text), Some(place));
        }
    }

    proptest! {
        #[test]
        fn no_number_of_a_record_or_a_place_overflows(
            first in prop_oneof![Just(0), Just(u64::MAX), any::<u64>()],
            shown in prop_oneof![Just(0), Just(u64::MAX), any::<u64>()],
            events in proptest::option::of(any::<usize>()),
        ) {
            let position = |seq| Position { epoch: 1, seq, time_us: seq };
            let mut view = TopicView::default();
            view.push(&Record { position: position(first), ..record(1, &["x"]) }, 1 << 20);
            view.resume(EventPosition { position: Some(position(shown)), events });
        }

        #[test]
        fn a_place_survives_its_text(seq in 1u64..1 << 40, time_us in any::<u64>(), events in proptest::option::of(1usize..512)) {
            let place = EventPosition { position: Some(Position { epoch: 7, seq, time_us }), events };
            prop_assert_eq!(EventPosition::parse(&place.to_text()), Some(place));
        }
    }
}
