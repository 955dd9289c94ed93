//! One topic as an edge knows it: its newest records, ready to be written, oldest first.

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

/// One record of the feed.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) position: Position,
    prev_time_us: u64,
    events: Vec<EncodedEvent>,
    bytes: usize,
    /// For who hears all keys: encoded once.
    frame: OnceLock<Option<Frame>>,
}

/// One event, as it is written.
#[derive(Debug)]
struct EncodedEvent {
    /// `None` for what everybody must hear.
    key: Option<Bytes>,
    text: Events,
}

/// A place in a topic: after so many events of the record with this position, or after all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) position: Option<Position>,
    pub(crate) events: Option<usize>,
}

/// A topic at one step: a cheap clone shares its entries.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopicView {
    entries: Vector<Arc<Entry>>,
    position: Option<Position>,
    bytes: usize,
    /// All events of records after this number are here.
    whole_after: u64,
}

/// Whether a client can go on from its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    /// Yes: from the entry of this index on, without its first so many events.
    From(usize, usize),
    /// The place is not in this history; it may be in what comes yet.
    Unknown,
    /// No: it is older than what is kept.
    TooOld,
}

impl Place {
    /// After all of a record.
    pub(crate) fn after(position: Option<Position>) -> Self {
        Self { position, events: None }
    }

    /// As the SSE `id:`: the cursor, and the number of the event in its record if it is not the last.
    pub(crate) fn to_text(self) -> String {
        let cursor = Cursor(vec![self.position]).to_text();
        match self.events {
            None => cursor,
            Some(events) => format!("{cursor}.{events}"),
        }
    }

    /// Reads the text form; `None` for anything that [`Place::to_text`] does not write.
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
    /// What a record tells; `None` if it tells nothing, or not to this version.
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
            Place { position: Some(record.position), events }.to_text()
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
            // A copy: a part of the payload would keep all of it.
            events.push(EncodedEvent { key: Some(Bytes::copy_from_slice(&event.key)), text });
        }
        // The text is there twice: for who hears of one key only, and in the frame for all others.
        let of = |told: &EncodedEvent| 2 * told.text.len() + told.key.as_ref().map_or(0, Bytes::len) + 160;
        let bytes = events.iter().map(of).sum();
        Some(Self {
            position: record.position,
            prev_time_us: record.prev_time_us,
            events,
            bytes,
            frame: OnceLock::new(),
        })
    }

    /// All of it, for who hears all keys.
    pub(crate) fn frame(&self) -> Option<&Frame> {
        self.frame
            .get_or_init(|| {
                let events = self.text(0, None);
                (!events.is_empty()).then(|| events.frame())
            })
            .as_ref()
    }

    /// What is in it for a client that has had so many of its events, and hears of one key only.
    pub(crate) fn text(&self, had: usize, key: Option<&[u8]>) -> Events {
        let mut all = Events::default();
        for told in self.events.iter().skip(had) {
            if key.is_none() || told.key.is_none() || told.key.as_deref() == key {
                all.append(&told.text);
            }
        }
        all
    }
}

/// A value as it came, if a stream can carry it as text; else in base64.
fn write(event: &TopicEvent, events: &mut Events) {
    let name = &event.event;
    let Some(value) = &event.value else {
        events.event(&format!("{name}{NULL_SUFFIX}"), "null");
        return;
    };
    match std::str::from_utf8(value) {
        // An event without data is none to a browser.
        Ok("") => events.event(&format!("{name}{EMPTY_SUFFIX}"), "\"\""),
        // A stream turns each carriage return into a line feed.
        Ok(text) if !text.contains('\r') => events.lines(name, text),
        _ => events.event(&format!("{name}{BASE64_SUFFIX}"), &STANDARD.encode(value)),
    };
}

impl TopicView {
    pub(crate) fn position(&self) -> Option<Position> {
        self.position
    }

    /// Whether it holds everything up to this head.
    pub(crate) fn reaches(&self, head: Option<Position>) -> bool {
        head.is_none_or(|head| self.position.is_some_and(|held| held.covers(head)))
    }

    /// Takes the next record in, and forgets the oldest above so many bytes. Whether this version
    /// could read it.
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

    /// The entries from an index on. An iterator of the whole would walk up to it.
    pub(crate) fn from(&self, index: usize) -> Vector<Arc<Entry>> {
        self.entries.skip(index.min(self.entries.len()))
    }

    /// The first entry after a number.
    fn after(&self, seq: u64) -> usize {
        let next = seq.saturating_add(1);
        self.entries.binary_search_by(|entry| entry.position.seq.cmp(&next)).unwrap_or_else(|at| at)
    }

    /// Whether a client that was shown all up to a place can go on from there. Records without events
    /// are not kept, so of a place between two entries it is only known that it lies there.
    pub(crate) fn resume(&self, place: Place) -> Resume {
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
        // The record that was shown last had no events, or is forgotten.
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(seq: u64, values: &[&str]) -> Record {
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
        let at = |seq: u64, events| Place {
            position: Some(Position { epoch: 1, seq, time_us: seq * 10 }),
            events,
        };
        assert_eq!(view.resume(Place::after(None)), Resume::From(0, 0));
        assert_eq!(view.resume(at(1, Some(2))), Resume::From(0, 2));
        assert_eq!(view.resume(at(1, None)), Resume::From(1, 0));
        assert_eq!(view.resume(at(2, None)), Resume::From(1, 0), "an empty record is a place, too");
        assert_eq!(view.resume(at(3, None)), Resume::From(2, 0));
        assert_eq!(view.resume(at(4, None)), Resume::Unknown);
        let of_another_history = Position { epoch: 1, seq: 3, time_us: 31 };
        assert_eq!(view.resume(Place::after(Some(of_another_history))), Resume::Unknown);
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
        let place = |seq: u64| Place::after(Some(Position { epoch: 1, seq, time_us: seq * 10 }));
        assert_eq!(view.resume(place(first - 2)), Resume::TooOld);
        assert_eq!(view.resume(place(first - 1)), Resume::From(0, 0));
        assert_eq!(view.resume(Place::after(None)), Resume::TooOld);
    }

    #[test]
    fn the_id_of_an_event_is_the_one_that_earlier_versions_wrote() {
        let position = Some(Position { epoch: 0x0102_0304, seq: 300, time_us: 1_800_000_000_000_001 });
        for (text, place) in [
            ("AA", Place { position: None, events: None }),
            ("AQECAwSsAoGA4sTyopkD", Place { position, events: None }),
            ("AQECAwSsAoGA4sTyopkD.12", Place { position, events: Some(12) }),
        ] {
            assert_eq!(place.to_text(), text);
            assert_eq!(Place::parse(text), Some(place));
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
            view.resume(Place { position: Some(position(shown)), events });
        }

        #[test]
        fn a_place_survives_its_text(seq in 1u64..1 << 40, time_us in any::<u64>(), events in proptest::option::of(1usize..512)) {
            let place = Place { position: Some(Position { epoch: 7, seq, time_us }), events };
            prop_assert_eq!(Place::parse(&place.to_text()), Some(place));
        }
    }
}
