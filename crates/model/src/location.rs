//! Positions: what arrives on Kafka, checked, and the JSON that browsers get.

use prost::Message as _;
use serde::de::MapAccess;
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::Fix;
use crate::json::{self, BYTE_ORDER_MARK, Field, Name, Object, required};
use crate::time::{self, WrongTime};

/// A mediaId may be this long, in bytes of UTF-8.
pub const MAX_MEDIA_ID_BYTES: usize = 128;
/// The `properties` of a fix may be this long, in bytes of compact JSON.
pub const MAX_PROPERTIES_BYTES: usize = 1024;
/// A timestamp may be this far ahead of the feed's time, in milliseconds.
pub const MAX_AHEAD_MS: i64 = 10_000;

/// How the values of a topic are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A JSON object: `mediaId`, `timestamp` (epoch ms), `latitude`, `longitude`, and optionally
    /// `heading`, `speed`, `properties`.
    Json,
    /// A [`Fix`].
    Protobuf,
}

impl Format {
    /// The format that a record's `content-type` header names, if it names one of ours.
    pub fn of_content_type(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        match text.split(';').next()?.trim().to_ascii_lowercase().as_str() {
            "application/json" => Some(Self::Json),
            "application/protobuf" | "application/x-protobuf" => Some(Self::Protobuf),
            _ => None,
        }
    }

    /// JSON, if a value begins as a JSON object or array, or as a text with a byte-order mark. No message of ours in
    /// protobuf begins so.
    pub fn of_value(value: &[u8]) -> Option<Self> {
        (value.starts_with(b"{") || value.starts_with(b"[") || value.starts_with(BYTE_ORDER_MARK))
            .then_some(Self::Json)
    }
}

/// A fix, and which of its optional values were left out: those that stand for "not available", or cannot be
/// meant. A position is not worth less for them.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The fix without them.
    pub fix: Fix,
    /// Its heading was left out.
    pub heading_left_out: bool,
    /// Its speed was left out.
    pub speed_left_out: bool,
}

/// Why a value is not a fix. [`Invalid::reason`] is the word for metrics and headers, the
/// `Display` form says more.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Invalid {
    /// Not a JSON text.
    #[error("the value is not JSON: {0}")]
    NotJson(String),
    /// JSON, but not an object with the right fields and types.
    #[error("the JSON is not a fix: {0}")]
    WrongShape(String),
    /// Not a protobuf `Fix`.
    #[error("the value is not a protobuf Fix: {0}")]
    NotProtobuf(String),
    /// An empty mediaId.
    #[error("mediaId is empty")]
    NoMediaId,
    /// A mediaId above [`MAX_MEDIA_ID_BYTES`].
    #[error("mediaId has {0} bytes, at most {MAX_MEDIA_ID_BYTES} are allowed")]
    MediaIdTooLong(usize),
    /// A latitude that is none, NaN included.
    #[error("latitude {0} is not within -90 to 90")]
    Latitude(f64),
    /// A longitude that is none, NaN included.
    #[error("longitude {0} is not within -180 to 180")]
    Longitude(f64),
    /// `properties` that are no JSON object or above [`MAX_PROPERTIES_BYTES`].
    #[error("properties are not a JSON object of at most {MAX_PROPERTIES_BYTES} bytes: {0}")]
    Properties(String),
    /// A timestamp that must be of another unit.
    #[error("timestamp {0}")]
    Timestamp(WrongTime),
    /// A timestamp further ahead than [`MAX_AHEAD_MS`].
    #[error("timestamp is {0} ms ahead, at most {MAX_AHEAD_MS} ms are allowed")]
    Future(i64),
}

impl Invalid {
    /// One stable word for each kind, for metrics and the `tutti-reason` header.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotJson(_) => "not_json",
            Self::WrongShape(_) => "wrong_shape",
            Self::NotProtobuf(_) => "not_protobuf",
            Self::NoMediaId => "no_media_id",
            Self::MediaIdTooLong(_) => "media_id_too_long",
            Self::Latitude(_) => "latitude",
            Self::Longitude(_) => "longitude",
            Self::Properties(_) => "properties",
            Self::Timestamp(_) => "timestamp",
            Self::Future(_) => "future",
        }
    }
}

impl From<json::Error> for Invalid {
    fn from(error: json::Error) -> Self {
        match error {
            json::Error::NotJson(why) => Self::NotJson(why),
            json::Error::WrongShape(why) => Self::WrongShape(why),
        }
    }
}

/// Reads a fix and checks each of its fields, but for the timestamp's relation to now (see
/// [`check_ahead`]).
///
/// # Errors
/// What is wrong with it, in an [`Invalid`].
pub fn decode(format: Format, value: &[u8]) -> Result<Decoded, Invalid> {
    let mut fix = match format {
        Format::Json => json::read::<JsonFix<'_>>(value)?.into_fix()?,
        Format::Protobuf => {
            let mut fix = Fix::decode(value).map_err(|e| Invalid::NotProtobuf(e.to_string()))?;
            if !fix.properties.is_empty() {
                fix.properties = compact_object(&fix.properties)?;
            }
            fix
        }
    };
    check(&fix)?;
    Ok(Decoded {
        heading_left_out: fix.heading.take_if(|heading| !is_heading(*heading)).is_some(),
        speed_left_out: fix.speed.take_if(|speed| !is_speed(*speed)).is_some(),
        fix,
    })
}

/// Checks when a fix or a removal was taken: that the time is in milliseconds.
///
/// # Errors
/// [`Invalid::Timestamp`] if it is not.
pub fn check_timestamp(timestamp_ms: i64) -> Result<(), Invalid> {
    time::check(timestamp_ms).map_err(Invalid::Timestamp)
}

/// Checks that a timestamp is not further ahead of `now_ms` than allowed.
///
/// # Errors
/// [`Invalid::Future`] if it is.
pub fn check_ahead(timestamp_ms: i64, now_ms: i64) -> Result<(), Invalid> {
    let ahead = timestamp_ms.saturating_sub(now_ms);
    if ahead > MAX_AHEAD_MS { Err(Invalid::Future(ahead)) } else { Ok(()) }
}

/// Checks a mediaId that stands alone, as in the key of a removal.
///
/// # Errors
/// [`Invalid::NoMediaId`] or [`Invalid::MediaIdTooLong`].
pub fn check_media_id(id: &str) -> Result<(), Invalid> {
    match id.len() {
        0 => Err(Invalid::NoMediaId),
        1..=MAX_MEDIA_ID_BYTES => Ok(()),
        more => Err(Invalid::MediaIdTooLong(more)),
    }
}

/// The JSON object of a fix as browsers get it, on one line.
pub fn to_json(fix: &Fix) -> String {
    serde_json::to_string(&AsJson(fix)).expect("strings and finite numbers always serialise")
}

/// The speed by which AIS says that there is none, in tenths of a knot, as it comes where nobody looked at it.
const AIS_NO_SPEED: f64 = 1023.0;

/// Whether a heading can be meant. AIS has 511 for "not available"; others have -1.
fn is_heading(degrees: f64) -> bool {
    (0.0..=360.0).contains(&degrees)
}

/// Whether a speed can be meant. AIS has 1023 for "not available"; others have -1.
fn is_speed(metres_a_second: f64) -> bool {
    metres_a_second >= 0.0 && metres_a_second.is_finite() && metres_a_second != AIS_NO_SPEED
}

fn check(fix: &Fix) -> Result<(), Invalid> {
    check_media_id(&fix.media_id)?;
    check_timestamp(fix.timestamp_ms)?;
    if !(-90.0..=90.0).contains(&fix.latitude) {
        return Err(Invalid::Latitude(fix.latitude));
    }
    if !(-180.0..=180.0).contains(&fix.longitude) {
        return Err(Invalid::Longitude(fix.longitude));
    }
    Ok(())
}

/// The object on one line: a line feed would end the `data:` line of an event.
fn compact_object(text: &str) -> Result<String, Invalid> {
    if text.len() > 4 * MAX_PROPERTIES_BYTES {
        return Err(Invalid::Properties(format!("{} bytes", text.len())));
    }
    json::check_any(text).map_err(|e| Invalid::Properties(e.to_string()))?;
    let (compact, _) = json::compact(text);
    if !compact.starts_with('{') {
        return Err(Invalid::Properties("another JSON value".to_owned()));
    }
    if compact.len() > MAX_PROPERTIES_BYTES {
        return Err(Invalid::Properties(format!("{} bytes", compact.len())));
    }
    Ok(compact)
}

#[derive(Default)]
struct JsonFix<'a> {
    media_id: Option<Name>,
    timestamp: Option<i64>,
    latitude: Option<f64>,
    longitude: Option<f64>,
    heading: Option<f64>,
    speed: Option<f64>,
    properties: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Object<'de> for JsonFix<'a> {
    const FIELDS: &'static [&'static str] =
        &["mediaId", "timestamp", "latitude", "longitude", "heading", "speed", "properties"];
    const SKIPS_OTHERS: bool = true;

    fn take<A: MapAccess<'de>>(&mut self, field: Field<'_, A>) -> Result<(), A::Error> {
        match field.name {
            "mediaId" => self.media_id = field.scalar()?,
            "timestamp" => self.timestamp = field.scalar()?,
            "latitude" => self.latitude = field.scalar()?,
            "longitude" => self.longitude = field.scalar()?,
            "heading" => self.heading = field.scalar()?,
            "speed" => self.speed = field.scalar()?,
            _ => self.properties = field.raw()?,
        }
        Ok(())
    }
}

impl JsonFix<'_> {
    fn into_fix(self) -> Result<Fix, Invalid> {
        let properties = self.properties.map(|p| compact_object(p.get())).transpose()?;
        Ok(Fix {
            media_id: required(self.media_id, "mediaId")?.0,
            timestamp_ms: required(self.timestamp, "timestamp")?,
            latitude: required(self.latitude, "latitude")?,
            longitude: required(self.longitude, "longitude")?,
            heading: self.heading,
            speed: self.speed,
            properties: properties.unwrap_or_default(),
        })
    }
}

struct AsJson<'a>(&'a Fix);

impl Serialize for AsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fix = self.0;
        let mut s = serializer.serialize_struct("Fix", 7)?;
        s.serialize_field("mediaId", &fix.media_id)?;
        s.serialize_field("timestamp", &fix.timestamp_ms)?;
        s.serialize_field("latitude", &fix.latitude)?;
        s.serialize_field("longitude", &fix.longitude)?;
        if let Some(heading) = fix.heading {
            s.serialize_field("heading", &heading)?;
        }
        if let Some(speed) = fix.speed {
            s.serialize_field("speed", &speed)?;
        }
        // What a writer of another version put there is shown only if it is what we would write.
        if let Ok(properties) = serde_json::from_str::<&RawValue>(&fix.properties)
            && !fix.properties.contains(['\n', '\r'])
        {
            s.serialize_field("properties", properties)?;
        }
        s.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: i64 = 1_700_000_000_000;

    fn json(text: &str) -> Result<Fix, Invalid> {
        decode(Format::Json, text.as_bytes()).map(|decoded| decoded.fix)
    }

    fn reason(text: &str) -> &'static str {
        json(text).unwrap_err().reason()
    }

    #[test]
    fn a_whole_fix_is_read_and_written_with_the_same_names() {
        let text = r#"{"mediaId":"taxi-7","timestamp":1700000000000,"latitude":37.7,"longitude":-122.4,"heading":90.0,"speed":12.5,"properties":{"occupied":true}}"#;
        assert_eq!(to_json(&json(text).unwrap()), text);
    }

    #[test]
    fn an_integer_media_id_becomes_its_text() {
        let fix = json(r#"{"mediaId":7,"timestamp":1700000000000,"latitude":0,"longitude":0}"#).unwrap();
        assert_eq!(fix.media_id, "7");
        assert_eq!(
            reason(r#"{"mediaId":7.5,"timestamp":1700000000000,"latitude":0,"longitude":0}"#),
            "wrong_shape"
        );
    }

    #[test]
    fn null_is_absent_and_an_integer_may_be_written_with_a_fraction_of_nothing() {
        let text = r#"{"mediaId":7.0,"timestamp":1700000000000.0,"latitude":0,"longitude":0,"heading":null,"speed":null,"properties":null}"#;
        let plain = r#"{"mediaId":7,"timestamp":1700000000000,"latitude":0,"longitude":0}"#;
        assert_eq!(json(text).unwrap(), json(plain).unwrap());
    }

    #[test]
    fn the_message_names_the_field_and_what_it_is() {
        let text = r#"{"mediaId":"a","timestamp":1700000000000,"latitude":"1","longitude":0}"#;
        assert_eq!(
            json(text).unwrap_err().to_string(),
            "the JSON is not a fix: `latitude` must be a number, is a string"
        );
        let text = r#"{"mediaId":"a","timestamp":null,"latitude":1,"longitude":0}"#;
        assert_eq!(json(text).unwrap_err().to_string(), "the JSON is not a fix: `timestamp` is missing");
        let text = r#"{"mediaId":"a","timestamp":1700000000,"latitude":1,"longitude":0}"#;
        let error = json(text).unwrap_err().to_string();
        assert_eq!(
            error,
            "timestamp 1700000000 is before the year 2001: is it in seconds? milliseconds since 1970 are needed"
        );
    }

    #[test]
    fn values_that_stand_for_not_available_are_left_out_and_the_position_stays() {
        let left_out = |heading: f64, speed: f64| {
            let fix = Fix {
                media_id: "a".into(),
                timestamp_ms: NOW,
                heading: Some(heading),
                speed: Some(speed),
                ..Fix::default()
            };
            let decoded = decode(Format::Protobuf, &fix.encode_to_vec()).unwrap();
            assert_eq!(decoded.fix.heading.is_none(), decoded.heading_left_out);
            assert_eq!(decoded.fix.speed.is_none(), decoded.speed_left_out);
            (decoded.heading_left_out, decoded.speed_left_out)
        };
        for (heading, speed) in [(511.0, 1023.0), (456.0, -1.0), (-1.0, f64::INFINITY), (f64::NAN, f64::NAN)]
        {
            assert_eq!(left_out(heading, speed), (true, true), "{heading} {speed}");
        }
        for (heading, speed) in [(0.0, 0.0), (360.0, 102.2), (359.9, 7660.0)] {
            assert_eq!(left_out(heading, speed), (false, false), "{heading} {speed}");
        }
    }

    #[test]
    fn digits_of_properties_are_kept() {
        let text = r#"{"mediaId":"a","timestamp":1700000000000,"latitude":0,"longitude":0,"properties":{"b": 12345678901234567890123.50, "a": 1}}"#;
        assert_eq!(json(text).unwrap().properties, r#"{"b":12345678901234567890123.50,"a":1}"#);
    }

    #[test]
    fn letters_in_properties_count_as_themselves_however_they_are_written() {
        let place = r"\u041f\u043b\u043e\u0449\u0430\u0434\u044c".repeat(30);
        let text = format!(
            r#"{{"mediaId":"a","timestamp":1700000000000,"latitude":0,"longitude":0,"properties":{{"at":"{place}"}}}}"#
        );
        assert_eq!(json(&text).unwrap().properties, format!(r#"{{"at":"{}"}}"#, "Площадь".repeat(30)));
    }

    #[test]
    fn line_feeds_in_properties_do_not_reach_the_stream() {
        let fix = json("{\"mediaId\":\"a\\nb\",\"timestamp\":1700000000000,\"latitude\":0,\"longitude\":0,\"properties\":{\n\"a\":\n1}}").unwrap();
        assert_eq!(fix.properties, r#"{"a":1}"#);
        assert!(!to_json(&fix).contains('\n'));
    }

    #[test]
    fn each_kind_of_garbage_has_its_reason() {
        let latin = b"{\"mediaId\":\"\xe4\",\"timestamp\":1700000000000,\"latitude\":0,\"longitude\":0}";
        assert_eq!(decode(Format::Json, latin).unwrap_err().reason(), "not_json");
        for (text, expected) in [
            ("", "not_json"),
            ("{", "not_json"),
            ("\u{0}\u{1}", "not_json"),
            (r#"{"mediaId":"a","timestamp":1700000000000,"latitude":NaN,"longitude":0}"#, "not_json"),
            ("[1]", "wrong_shape"),
            ("7", "wrong_shape"),
            (r#"{"timestamp":1700000000000,"latitude":0,"longitude":0}"#, "wrong_shape"),
            (r#"{"mediaId":null,"timestamp":1700000000000,"latitude":0,"longitude":0}"#, "wrong_shape"),
            (r#"{"mediaId":"a","timestamp":"1700000000000","latitude":0,"longitude":0}"#, "wrong_shape"),
            (r#"{"mediaId":"","timestamp":1700000000000,"latitude":0,"longitude":0}"#, "no_media_id"),
            (r#"{"mediaId":"a","timestamp":-1,"latitude":0,"longitude":0}"#, "timestamp"),
            (r#"{"mediaId":"a","timestamp":1700000000000,"latitude":91,"longitude":0}"#, "latitude"),
            (r#"{"mediaId":"a","timestamp":1700000000000,"latitude":0,"longitude":180.1}"#, "longitude"),
            (r#"{"mediaId":"a","timestamp":1700000000,"latitude":0,"longitude":0}"#, "timestamp"),
            (
                r#"{"mediaId":"a","timestamp":1700000000000,"latitude":0,"longitude":0,"speed":"1"}"#,
                "wrong_shape",
            ),
            (r#"["a",1700000000000,0,0,null,null,null]"#, "wrong_shape"),
            (
                r#"{"mediaId":"a","timestamp":1700000000000,"latitude":0,"latitude":1,"longitude":0}"#,
                "wrong_shape",
            ),
            (
                r#"{"mediaId":"a","timestamp":1700000000000,"latitude":0,"longitude":0,"properties":{"a":1,"a":2}}"#,
                "properties",
            ),
            (
                r#"{"mediaId":"a","timestamp":1700000000000,"latitude":0,"longitude":0,"properties":[]}"#,
                "properties",
            ),
        ] {
            assert_eq!(reason(text), expected, "{text}");
        }
        let long = format!(
            r#"{{"mediaId":"{}","timestamp":1700000000000,"latitude":0,"longitude":0}}"#,
            "a".repeat(129)
        );
        assert_eq!(reason(&long), "media_id_too_long");
        let big = format!(
            r#"{{"mediaId":"a","timestamp":1700000000000,"latitude":0,"longitude":0,"properties":{{"p":"{}"}}}}"#,
            "p".repeat(1024)
        );
        assert_eq!(reason(&big), "properties");
        assert_eq!(check_ahead(10_001, 0).unwrap_err().reason(), "future");
        assert_eq!(check_ahead(10_000, 0), Ok(()));
    }

    #[test]
    fn protobuf_is_checked_like_json() {
        let nan = Fix { media_id: "a".into(), timestamp_ms: NOW, latitude: f64::NAN, ..Fix::default() };
        let error = decode(Format::Protobuf, &nan.encode_to_vec()).unwrap_err();
        assert_eq!(error.reason(), "latitude");
        let whole = Fix { media_id: "abc".into(), latitude: 1.0, ..Fix::default() }.encode_to_vec();
        let error = decode(Format::Protobuf, &whole[..whole.len() - 1]).unwrap_err();
        assert_eq!(error.reason(), "not_protobuf");
    }

    proptest! {
        #[test]
        fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(Format::Json, &bytes);
            let _ = decode(Format::Protobuf, &bytes);
        }

        #[test]
        fn a_valid_fix_survives_both_forms(
            id in "[^\\x00]{1,40}", timestamp_ms in time::FIRST_MS..=time::LAST_MS,
            latitude in -90_00000i32..=90_00000, longitude in -180_00000i32..=180_00000,
            heading in proptest::option::of(0u16..=360), speed in proptest::option::of(0u16..=999),
        ) {
            // Decimal places as devices send them: JSON's shortest form of any double may be off by one bit.
            let (latitude, longitude) = (f64::from(latitude) / 1e5, f64::from(longitude) / 1e5);
            let (heading, speed) = (heading.map(f64::from), speed.map(f64::from));
            prop_assume!(id.len() <= MAX_MEDIA_ID_BYTES);
            let fix = Fix { media_id: id, timestamp_ms, latitude, longitude, heading, speed, properties: String::new() };
            prop_assert_eq!(&decode(Format::Json, to_json(&fix).as_bytes()).unwrap().fix, &fix);
            prop_assert_eq!(&decode(Format::Protobuf, &fix.encode_to_vec()).unwrap().fix, &fix);
        }
    }
}
