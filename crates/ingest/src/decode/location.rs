//! Records of the live map: fixes of devices and their removals.

use prost::Message as _;
use tutti_model::location::{self, Invalid};
use tutti_model::{Change, Format, Gap, Locations, Removal, change};

use crate::decode::{Decoded, Decoder, Rejection};
use crate::metrics::LeftOut;
use crate::record::RawRecord;

/// The protobuf key of the field `changes` of `Locations`: field number 1, with a length.
const CHANGES: u8 = 1 << 3 | 2;

/// Decodes fixes. A record without a value removes the device that its key names.
#[derive(Clone, Debug)]
pub(crate) struct LocationDecoder {
    /// The format of values whose bytes and headers do not show one.
    pub(crate) format: Format,
    /// A change of this age or older is stale.
    pub(crate) stale_after_ms: i64,
    /// Counts the optional values that are left out of fixes.
    pub(crate) left_out: LeftOut,
}

impl LocationDecoder {
    /// Returns what a record changes on the map, or `None` if it is stale.
    ///
    /// # Errors
    /// Why the record is not valid.
    fn change(&self, record: RawRecord<'_>, now_ms: i64) -> Result<Option<Change>, Invalid> {
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
        let is_stale = timestamp_ms <= now_ms.saturating_sub(self.stale_after_ms);
        Ok((!is_stale).then_some(Change { change: Some(change) }))
    }
}

impl Decoder for LocationDecoder {
    /// `Locations` with one change, in protobuf. The concatenation of several is `Locations` with all their changes.
    type Part = Vec<u8>;

    fn decode(&self, record: RawRecord<'_>, now_ms: i64) -> Result<Decoded<Vec<u8>>, Rejection> {
        let Some(change) = self.change(record, now_ms)? else { return Ok(Decoded::Stale) };
        // Encoded without the list, which would be allocated for each record.
        let mut part = Vec::with_capacity(128);
        part.push(CHANGES);
        change.encode_length_delimited(&mut part).expect("a Vec grows");
        Ok(Decoded::Part(part))
    }
}

/// Returns the payload that announces records missing in Kafka to the followers of the map.
pub(crate) fn gap_payload(gap: Gap) -> Vec<u8> {
    Locations { changes: vec![Change { change: Some(change::Change::Gap(gap)) }] }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::fixtures::{Header, NOW, raw};
    use proptest::prelude::*;

    fn decoder() -> LocationDecoder {
        LocationDecoder { format: Format::Json, stale_after_ms: 30_000, left_out: LeftOut::default() }
    }

    fn fix_of(timestamp_ms: i64) -> String {
        format!(r#"{{"mediaId":"a","timestamp":{timestamp_ms},"latitude":1,"longitude":2}}"#)
    }

    #[test]
    fn the_limits_of_age_are_exact() {
        let change = |value: &str| decoder().change(raw(Some(value)), NOW);
        assert_eq!(change(&fix_of(NOW - 30_000)), Ok(None));
        assert!(matches!(change(&fix_of(NOW - 29_999)), Ok(Some(_))));
        assert!(matches!(change(&fix_of(NOW + 10_000)), Ok(Some(_))));
        assert_eq!(change(&fix_of(NOW + 10_001)), Err(Invalid::Future(10_001)));
        assert_eq!(change(&fix_of(i64::MAX)).unwrap_err().reason(), "timestamp");
        assert_eq!(decoder().decode(raw(Some(&fix_of(NOW - 30_000))), NOW), Ok(Decoded::Stale));
    }

    #[test]
    fn a_removal_whose_record_has_no_time_in_milliseconds_is_not_valid() {
        for timestamp in [NOW / 1000, i64::MIN, i64::MAX] {
            let record = RawRecord { timestamp_ms: Some(timestamp), ..raw(None) };
            assert_eq!(decoder().change(record, NOW).unwrap_err().reason(), "timestamp", "{timestamp}");
        }
        assert!(decoder().change(RawRecord { timestamp_ms: None, ..raw(None) }, NOW).is_ok());
    }

    #[test]
    fn a_value_that_is_left_out_is_counted_by_its_field() {
        let decoder = decoder();
        let value = format!(
            r#"{{"mediaId":"a","timestamp":{NOW},"latitude":1,"longitude":2,"heading":511,"speed":3}}"#
        );
        assert!(matches!(decoder.change(raw(Some(&value)), NOW), Ok(Some(_))));
        assert_eq!((decoder.left_out.heading.get(), decoder.left_out.speed.get()), (1, 0));
    }

    #[test]
    fn an_array_and_a_text_with_a_byte_order_mark_are_json_whatever_the_route_says() {
        let decoder = LocationDecoder { format: Format::Protobuf, ..decoder() };
        let marked = format!("\u{feff}{}", fix_of(NOW));
        assert!(matches!(decoder.change(raw(Some(&marked)), NOW), Ok(Some(_))));
        let batch = format!("[{}]", fix_of(NOW));
        let error = decoder.change(raw(Some(&batch)), NOW).unwrap_err().to_string();
        assert!(error.contains("must be one object, is an array: send each"), "{error}");
    }

    proptest! {
        #[test]
        fn no_number_from_outside_overflows(
            timestamp: i64, of_record: Option<i64>, now_ms: i64, stale_after_ms in 0..=i64::MAX, offset in 0..i64::MAX,
        ) {
            let decoder = LocationDecoder { stale_after_ms, ..decoder() };
            for value in [Some(fix_of(timestamp)), None] {
                let record = RawRecord { offset, timestamp_ms: of_record, ..raw(value.as_deref()) };
                let _ = decoder.decode(record, now_ms);
            }
        }
    }

    #[test]
    fn a_part_is_a_list_of_one_change() {
        let Ok(Some(change)) = decoder().change(raw(Some(&fix_of(NOW))), NOW) else { panic!("a change") };
        let part = decoder().decode(raw(Some(&fix_of(NOW))), NOW);
        assert_eq!(part, Ok(Decoded::Part(Locations { changes: vec![change] }.encode_to_vec())));
    }

    #[test]
    fn a_null_value_removes_the_device_of_its_key() {
        let removal = Removal { media_id: "taxi-7".into(), timestamp_ms: NOW - 5 };
        let change = Change { change: Some(change::Change::Removal(removal)) };
        assert_eq!(decoder().change(raw(None), NOW), Ok(Some(change)));
        let keyless = RawRecord { key: None, ..raw(None) };
        assert_eq!(decoder().change(keyless, NOW), Err(Invalid::NoMediaId));
    }

    #[test]
    fn the_header_wins_over_the_format_of_the_route_and_an_object_is_json() {
        let fix = tutti_model::Fix { media_id: "a".into(), timestamp_ms: NOW, ..Default::default() };
        let bytes = fix.encode_to_vec();
        let protobuf: Header = ("content-type", b"application/protobuf");
        let record = RawRecord { value: Some(&bytes), headers: &protobuf, ..raw(None) };
        assert!(matches!(decoder().change(record, NOW), Ok(Some(_))));
        let json = fix_of(NOW);
        let record = RawRecord { headers: &protobuf, ..raw(Some(&json)) };
        assert!(matches!(decoder().change(record, NOW), Ok(Some(_))));
    }
}
