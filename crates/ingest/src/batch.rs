//! The pure part: values to changes, gathered into the payload of one append.

use prost::Message as _;
use tutti_model::events::is_topic_event_name;
use tutti_model::location::{self, Invalid};
use tutti_model::notification;
use tutti_model::time::is_plausible;
use tutti_model::{Change, Format, Gap, Locations, Removal, TopicEvent, TopicRecords, change};

use crate::metrics::LeftOut;

/// A batch holds at most so many records,
pub(crate) const MAX_RECORDS: usize = 512;
/// and about so many bytes of values.
pub(crate) const MAX_BYTES: usize = 256 * 1024;

/// The key of the field `changes` of `Locations`: number 1, with a length.
const CHANGES: u8 = 1 << 3 | 2;

/// The headers of a record. The driver reads them when it is first asked for one.
pub(crate) trait Headers: std::fmt::Debug {
    /// The first of a name, in any case.
    fn header(&self, name: &str) -> Option<&[u8]>;
}

/// A record as Kafka has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw<'a> {
    pub(crate) offset: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: &'a dyn Headers,
    /// Milliseconds since 1970; `None` if the record has none.
    pub(crate) timestamp_ms: Option<i64>,
}

impl Raw<'_> {
    /// How its value is written: as its first bytes show; else what the header `content-type` says, or the route.
    pub(crate) fn format(&self, of_route: Format) -> Format {
        let by_header = || self.headers.header("content-type").and_then(Format::of_content_type);
        self.value.and_then(Format::of_value).or_else(by_header).unwrap_or(of_route)
    }
}

/// Why a record is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// One stable word for each kind.
    pub(crate) reason: &'static str,
    /// The whole of it.
    pub(crate) error: String,
}

impl From<location::Invalid> for Rejection {
    fn from(invalid: location::Invalid) -> Self {
        Self { reason: invalid.reason(), error: invalid.to_string() }
    }
}

impl From<notification::Invalid> for Rejection {
    fn from(invalid: notification::Invalid) -> Self {
        Self { reason: invalid.reason(), error: invalid.to_string() }
    }
}

/// What a record means.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    Change(Change),
    /// Too old to count: left out.
    Stale,
}

/// How records are judged.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) format: Format,
    pub(crate) stale_after_ms: i64,
    /// Counts the optional values that are left out of fixes.
    pub(crate) left_out: LeftOut,
}

impl Rules {
    /// Judges one record at `now_ms` of the feed's time.
    ///
    /// # Errors
    /// Why it is not valid.
    pub(crate) fn judge(&self, record: Raw<'_>, now_ms: i64) -> Result<Verdict, Invalid> {
        let (timestamp_ms, change) = match record.value {
            Some(value) => {
                let decoded = location::decode(record.format(self.format), value)?;
                self.left_out.count(&decoded);
                (decoded.fix.timestamp_ms, change::Change::Fix(decoded.fix))
            }
            None => {
                let key = record.key.unwrap_or_default();
                let media_id = std::str::from_utf8(key)
                    .map_err(|_| Invalid::WrongShape("the key of a removal is not UTF-8".into()))?
                    .to_owned();
                location::check_media_id(&media_id)?;
                let timestamp_ms = record.timestamp_ms.unwrap_or(now_ms);
                location::check_timestamp(timestamp_ms)?;
                (timestamp_ms, change::Change::Removal(Removal { media_id, timestamp_ms }))
            }
        };
        location::check_ahead(timestamp_ms, now_ms)?;
        if timestamp_ms <= now_ms.saturating_sub(self.stale_after_ms) {
            return Ok(Verdict::Stale);
        }
        Ok(Verdict::Change(Change { change: Some(change) }))
    }
}

/// What the records of a route become.
#[derive(Clone, Debug)]
pub(crate) enum Judge {
    /// Changes of the live map.
    Locations(Rules),
    /// Events, of this name where their header does not say.
    Events { event: String },
}

impl Judge {
    /// What to append of a record, as protobuf whose concatenation is one payload; `None` if it is too
    /// old to count.
    ///
    /// # Errors
    /// Why it is not valid.
    pub(crate) fn judge(&self, record: Raw<'_>, now_ms: i64) -> Result<Option<Vec<u8>>, Rejection> {
        match self {
            Self::Locations(rules) => Ok(match rules.judge(record, now_ms)? {
                Verdict::Stale => None,
                Verdict::Change(change) => {
                    // `Locations` with one change, without its list.
                    let mut part = Vec::with_capacity(128);
                    part.push(CHANGES);
                    change.encode_length_delimited(&mut part).expect("a Vec grows");
                    Some(part)
                }
            }),
            Self::Events { event } => {
                let named = record.headers.header("event").and_then(|name| std::str::from_utf8(name).ok());
                let event = TopicEvent {
                    key: record.key.unwrap_or_default().to_vec().into(),
                    value: record.value.map(|value| value.to_vec().into()),
                    event: named.filter(|name| is_topic_event_name(name)).unwrap_or(event).to_owned(),
                };
                Ok(Some(TopicRecords { events: vec![event], gap: None }.encode_to_vec()))
            }
        }
    }

    /// The payload that tells of records that are missing in Kafka.
    pub(crate) fn gap(&self, gap: Gap) -> Vec<u8> {
        match self {
            Self::Locations(_) => {
                let changes = vec![Change { change: Some(change::Change::Gap(gap)) }];
                Locations { changes }.encode_to_vec()
            }
            Self::Events { .. } => TopicRecords { events: Vec::new(), gap: Some(gap) }.encode_to_vec(),
        }
    }
}

/// Records of one partition on their way to one append; each may have brought a part.
#[derive(Debug)]
pub(crate) struct Batch<P> {
    /// Where the partition stood before it.
    from: i64,
    /// Where it stands after it.
    to: i64,
    parts: Vec<(i64, P)>,
    /// The offsets and Kafka timestamps of all records, those left out as well.
    records: Vec<(i64, Option<i64>)>,
    bytes: usize,
}

impl<P> Batch<P> {
    pub(crate) fn new(from: i64) -> Self {
        Self { from, to: from, parts: Vec::new(), records: Vec::new(), bytes: 0 }
    }

    pub(crate) fn from(&self) -> i64 {
        self.from
    }

    pub(crate) fn to(&self) -> i64 {
        self.to
    }

    pub(crate) fn records(&self) -> usize {
        self.records.len()
    }

    /// What its records brought, in their order.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &P> {
        self.parts.iter().map(|(_, part)| part)
    }

    /// How old each record was at `now_ms`, in seconds, by its Kafka timestamp; without the records whose producer
    /// wrote a timestamp that is none.
    pub(crate) fn ages(&self, now_ms: i64) -> impl Iterator<Item = f64> {
        let written = self.records.iter().filter_map(|(_, at)| at.filter(|at| is_plausible(*at)));
        written.map(move |at| now_ms.saturating_sub(at).max(0) as f64 / 1000.0)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.records.len() >= MAX_RECORDS || self.bytes >= MAX_BYTES
    }

    /// Adds a record, and what it brought; `None` if it only moves the position.
    pub(crate) fn push(&mut self, record: &Raw<'_>, part: Option<P>) {
        debug_assert!(record.offset >= self.to, "offsets grow");
        self.to = record.offset + 1;
        self.bytes += record.value.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len);
        self.records.push((record.offset, record.timestamp_ms));
        self.parts.extend(part.map(|part| (record.offset, part)));
    }

    /// Drops what Redis has already, and goes on from there; says how many records that were.
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
    use proptest::prelude::*;

    const NOW: i64 = 1_700_000_000_000;
    const NONE: Header = ("", &[]);

    fn rules() -> Rules {
        Rules { format: Format::Json, stale_after_ms: 30_000, left_out: LeftOut::default() }
    }

    type Header = (&'static str, &'static [u8]);

    impl Headers for Header {
        fn header(&self, name: &str) -> Option<&[u8]> {
            (self.0 == name).then_some(self.1)
        }
    }

    fn raw(value: Option<&str>) -> Raw<'_> {
        Raw {
            offset: 0,
            key: Some(b"taxi-7"),
            value: value.map(str::as_bytes),
            headers: &NONE,
            timestamp_ms: Some(NOW - 5),
        }
    }

    fn fix_of(timestamp_ms: i64) -> String {
        format!(r#"{{"mediaId":"a","timestamp":{timestamp_ms},"latitude":1,"longitude":2}}"#)
    }

    fn change(id: &str) -> Option<Vec<u8>> {
        let removal = Removal { media_id: id.into(), timestamp_ms: 1 };
        let change = Change { change: Some(change::Change::Removal(removal)) };
        Some(Locations { changes: vec![change] }.encode_to_vec())
    }

    #[test]
    fn the_limits_of_age_are_exact() {
        assert_eq!(rules().judge(raw(Some(&fix_of(NOW - 30_000))), NOW), Ok(Verdict::Stale));
        assert!(matches!(rules().judge(raw(Some(&fix_of(NOW - 29_999))), NOW), Ok(Verdict::Change(_))));
        assert!(matches!(rules().judge(raw(Some(&fix_of(NOW + 10_000))), NOW), Ok(Verdict::Change(_))));
        assert_eq!(rules().judge(raw(Some(&fix_of(NOW + 10_001))), NOW), Err(Invalid::Future(10_001)));
        assert_eq!(rules().judge(raw(Some(&fix_of(i64::MAX))), NOW).unwrap_err().reason(), "timestamp");
    }

    #[test]
    fn a_removal_whose_record_has_no_time_in_milliseconds_is_not_valid() {
        for timestamp in [NOW / 1000, i64::MIN, i64::MAX] {
            let record = Raw { timestamp_ms: Some(timestamp), ..raw(None) };
            assert_eq!(rules().judge(record, NOW).unwrap_err().reason(), "timestamp", "{timestamp}");
        }
        assert!(rules().judge(Raw { timestamp_ms: None, ..raw(None) }, NOW).is_ok());
    }

    #[test]
    fn an_age_is_told_only_of_records_with_a_time_in_milliseconds() {
        let mut batch = Batch::<()>::new(0);
        let timestamps = [i64::MIN, NOW / 1000, NOW - 1500, NOW + 500, i64::MAX].map(Some);
        for (offset, timestamp_ms) in timestamps.into_iter().chain([None]).enumerate() {
            batch.push(&Raw { offset: offset as i64, timestamp_ms, ..raw(None) }, None);
        }
        assert_eq!(batch.ages(NOW).collect::<Vec<_>>(), [1.5, 0.0]);
    }

    #[test]
    fn a_value_that_is_left_out_is_counted_by_its_field() {
        let rules = rules();
        let value = format!(
            r#"{{"mediaId":"a","timestamp":{NOW},"latitude":1,"longitude":2,"heading":511,"speed":3}}"#
        );
        assert!(matches!(rules.judge(raw(Some(&value)), NOW), Ok(Verdict::Change(_))));
        assert_eq!((rules.left_out.heading.get(), rules.left_out.speed.get()), (1, 0));
    }

    #[test]
    fn an_array_and_a_text_with_a_byte_order_mark_are_json_whatever_the_route_says() {
        let rules = Rules { format: Format::Protobuf, ..rules() };
        let marked = format!("\u{feff}{}", fix_of(NOW));
        assert!(matches!(rules.judge(raw(Some(&marked)), NOW), Ok(Verdict::Change(_))));
        let batch = format!("[{}]", fix_of(NOW));
        let error = rules.judge(raw(Some(&batch)), NOW).unwrap_err().to_string();
        assert!(error.contains("must be one object, is an array: send each"), "{error}");
    }

    proptest! {
        #[test]
        fn no_number_from_outside_overflows(
            timestamp: i64, of_record: Option<i64>, now_ms: i64, stale_after_ms in 0..=i64::MAX, offset in 0..i64::MAX,
        ) {
            let rules = Rules { stale_after_ms, ..rules() };
            let mut batch = Batch::<Vec<u8>>::new(0);
            for value in [Some(fix_of(timestamp)), None] {
                let record = Raw { offset, timestamp_ms: of_record, ..raw(value.as_deref()) };
                let _ = rules.judge(record, now_ms);
            }
            batch.push(&Raw { offset, timestamp_ms: of_record, ..raw(None) }, None);
            prop_assert!(batch.ages(now_ms).all(|age| age >= 0.0));
        }
    }

    #[test]
    fn a_part_is_a_list_of_one_change() {
        let Ok(Verdict::Change(change)) = rules().judge(raw(Some(&fix_of(NOW))), NOW) else {
            panic!("a change")
        };
        let part = Judge::Locations(rules()).judge(raw(Some(&fix_of(NOW))), NOW).unwrap().unwrap();
        assert_eq!(part, Locations { changes: vec![change] }.encode_to_vec());
    }

    #[test]
    fn a_null_value_removes_the_device_of_its_key() {
        let removal = Removal { media_id: "taxi-7".into(), timestamp_ms: NOW - 5 };
        let change = Change { change: Some(change::Change::Removal(removal)) };
        assert_eq!(rules().judge(raw(None), NOW), Ok(Verdict::Change(change)));
        let keyless = Raw { key: None, ..raw(None) };
        assert_eq!(rules().judge(keyless, NOW), Err(Invalid::NoMediaId));
    }

    #[test]
    fn the_header_wins_over_the_format_of_the_route_and_an_object_is_json() {
        let fix = tutti_model::Fix { media_id: "a".into(), timestamp_ms: NOW, ..Default::default() };
        let bytes = fix.encode_to_vec();
        let protobuf: Header = ("content-type", b"application/protobuf");
        let record = Raw { value: Some(&bytes), headers: &protobuf, ..raw(None) };
        assert!(matches!(rules().judge(record, NOW), Ok(Verdict::Change(_))));
        let json = fix_of(NOW);
        let record = Raw { headers: &protobuf, ..raw(Some(&json)) };
        assert!(matches!(rules().judge(record, NOW), Ok(Verdict::Change(_))));
    }

    #[test]
    fn an_event_is_named_by_its_header_but_not_as_streams_name_their_own() {
        let judge = Judge::Events { event: "message".into() };
        let named = |headers: Header| {
            let part = judge.judge(Raw { headers: &headers, ..raw(Some("x")) }, NOW).unwrap().unwrap();
            TopicRecords::decode(part.as_slice()).unwrap().events[0].event.clone()
        };
        assert_eq!(named(NONE), "message");
        assert_eq!(named(("event", b"order")), "order");
        for bad in [&b"reset"[..], b"end", b"x.null", b"a\nb", b"", &[0xff]] {
            assert_eq!(named(("event", bad)), "message");
        }
    }

    #[test]
    fn a_batch_that_was_there_in_part_goes_on_with_the_rest() {
        let mut batch = Batch::new(10);
        for offset in [10, 11, 14, 15] {
            batch.push(&Raw { offset, ..raw(None) }, change("a"));
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
            batch.push(&Raw { offset, ..raw(None) }, None);
        }
        assert!(batch.is_full());
        let mut batch = Batch::<()>::new(0);
        batch.push(&raw(Some(&"x".repeat(MAX_BYTES))), None);
        assert!(batch.is_full());
    }
}
