//! Positions: what arrives on Kafka, checked, and the JSON that browsers get.

use std::borrow::Cow;
use std::fmt;

use prost::Message as _;
use serde::de::{self, Deserializer, Visitor};
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::Fix;

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
    /// A heading that is none, NaN included.
    #[error("heading {0} is not within 0 to 360 degrees")]
    Heading(f64),
    /// A negative or unbounded speed.
    #[error("speed {0} is not a number of metres a second from 0 up")]
    Speed(f64),
    /// `properties` that are no JSON object or above [`MAX_PROPERTIES_BYTES`].
    #[error("properties are not a JSON object of at most {MAX_PROPERTIES_BYTES} bytes: {0}")]
    Properties(String),
    /// A timestamp before 1970, or so late that it must be of another unit.
    #[error("timestamp {0} is not a number of milliseconds since 1970")]
    Timestamp(i64),
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
            Self::Heading(_) => "heading",
            Self::Speed(_) => "speed",
            Self::Properties(_) => "properties",
            Self::Timestamp(_) => "timestamp",
            Self::Future(_) => "future",
        }
    }
}

/// Reads a fix and checks each of its fields, but for the timestamp's relation to now (see
/// [`check_ahead`]).
///
/// # Errors
/// What is wrong with it, in an [`Invalid`].
pub fn decode(format: Format, value: &[u8]) -> Result<Fix, Invalid> {
    let fix = match format {
        Format::Json => {
            // Once for all of it: serde_json would do so for each name and string alone.
            let text = str::from_utf8(value).map_err(|e| Invalid::NotJson(e.to_string()))?;
            serde_json::from_str::<JsonFix>(text).map_err(|e| json_error(&e))?.into_fix()?
        }
        Format::Protobuf => {
            let mut fix = Fix::decode(value).map_err(|e| Invalid::NotProtobuf(e.to_string()))?;
            if !fix.properties.is_empty() {
                fix.properties = compact_object(&fix.properties)?;
            }
            fix
        }
    };
    check(&fix)?;
    Ok(fix)
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

/// Year 9999: a timestamp above it is in microseconds or worse.
const MAX_TIMESTAMP_MS: i64 = 253_402_300_799_999;

fn check(fix: &Fix) -> Result<(), Invalid> {
    check_media_id(&fix.media_id)?;
    if !(0..=MAX_TIMESTAMP_MS).contains(&fix.timestamp_ms) {
        return Err(Invalid::Timestamp(fix.timestamp_ms));
    }
    if !(-90.0..=90.0).contains(&fix.latitude) {
        return Err(Invalid::Latitude(fix.latitude));
    }
    if !(-180.0..=180.0).contains(&fix.longitude) {
        return Err(Invalid::Longitude(fix.longitude));
    }
    if let Some(heading) = fix.heading.filter(|h| !(0.0..=360.0).contains(h)) {
        return Err(Invalid::Heading(heading));
    }
    if let Some(speed) = fix.speed.filter(|s| !(*s >= 0.0 && s.is_finite())) {
        return Err(Invalid::Speed(speed));
    }
    Ok(())
}

fn json_error(error: &serde_json::Error) -> Invalid {
    // The column is kept, the input is not: it may be large, and it goes to a header and a log.
    let mut text = error.to_string();
    text.truncate(text.floor_char_boundary(200));
    match error.classify() {
        serde_json::error::Category::Data => Invalid::WrongShape(text),
        _ => Invalid::NotJson(text),
    }
}

/// The object on one line: a line feed would end the `data:` line of an event.
fn compact_object(text: &str) -> Result<String, Invalid> {
    if text.len() > 4 * MAX_PROPERTIES_BYTES {
        return Err(Invalid::Properties(format!("{} bytes", text.len())));
    }
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|e| Invalid::Properties(e.to_string()))?;
    let compact = serde_json::to_string(&object).expect("parsed JSON always serialises");
    if compact.len() > MAX_PROPERTIES_BYTES {
        return Err(Invalid::Properties(format!("{} bytes", compact.len())));
    }
    Ok(compact)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonFix<'a> {
    #[serde(borrow)]
    media_id: MediaId<'a>,
    timestamp: i64,
    latitude: f64,
    longitude: f64,
    heading: Option<f64>,
    speed: Option<f64>,
    #[serde(borrow)]
    properties: Option<&'a RawValue>,
}

impl JsonFix<'_> {
    fn into_fix(self) -> Result<Fix, Invalid> {
        let properties = self.properties.map(|p| compact_object(p.get())).transpose()?;
        Ok(Fix {
            media_id: self.media_id.0.into_owned(),
            timestamp_ms: self.timestamp,
            latitude: self.latitude,
            longitude: self.longitude,
            heading: self.heading,
            speed: self.speed,
            properties: properties.unwrap_or_default(),
        })
    }
}

/// A string or an integer; both are one text from here on.
struct MediaId<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for MediaId<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MediaIdVisitor).map(Self)
    }
}

struct MediaIdVisitor;

impl<'de> Visitor<'de> for MediaIdVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an integer as mediaId")
    }
    fn visit_borrowed_str<E: de::Error>(self, v: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(v))
    }
    fn visit_str<E: de::Error>(self, v: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(v.to_owned()))
    }
    fn visit_u64<E: de::Error>(self, v: u64) -> Result<Self::Value, E> {
        Ok(Cow::Owned(v.to_string()))
    }
    fn visit_i64<E: de::Error>(self, v: i64) -> Result<Self::Value, E> {
        Ok(Cow::Owned(v.to_string()))
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

    fn json(text: &str) -> Result<Fix, Invalid> {
        decode(Format::Json, text.as_bytes())
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
        let fix = json(r#"{"mediaId":7,"timestamp":1,"latitude":0,"longitude":0}"#).unwrap();
        assert_eq!(fix.media_id, "7");
        assert_eq!(reason(r#"{"mediaId":7.5,"timestamp":1,"latitude":0,"longitude":0}"#), "wrong_shape");
    }

    #[test]
    fn line_feeds_in_properties_do_not_reach_the_stream() {
        let fix = json("{\"mediaId\":\"a\\nb\",\"timestamp\":1,\"latitude\":0,\"longitude\":0,\"properties\":{\n\"a\":\n1}}").unwrap();
        assert_eq!(fix.properties, r#"{"a":1}"#);
        assert!(!to_json(&fix).contains('\n'));
    }

    #[test]
    fn each_kind_of_garbage_has_its_reason() {
        let latin = b"{\"mediaId\":\"\xe4\",\"timestamp\":1,\"latitude\":0,\"longitude\":0}";
        assert_eq!(decode(Format::Json, latin).unwrap_err().reason(), "not_json");
        for (text, expected) in [
            ("", "not_json"),
            ("{", "not_json"),
            ("\u{0}\u{1}", "not_json"),
            (r#"{"mediaId":"a","timestamp":1,"latitude":NaN,"longitude":0}"#, "not_json"),
            ("[1]", "wrong_shape"),
            ("7", "wrong_shape"),
            (r#"{"timestamp":1,"latitude":0,"longitude":0}"#, "wrong_shape"),
            (r#"{"mediaId":null,"timestamp":1,"latitude":0,"longitude":0}"#, "wrong_shape"),
            (r#"{"mediaId":"a","timestamp":"1","latitude":0,"longitude":0}"#, "wrong_shape"),
            (r#"{"mediaId":"","timestamp":1,"latitude":0,"longitude":0}"#, "no_media_id"),
            (r#"{"mediaId":"a","timestamp":-1,"latitude":0,"longitude":0}"#, "timestamp"),
            (r#"{"mediaId":"a","timestamp":1,"latitude":91,"longitude":0}"#, "latitude"),
            (r#"{"mediaId":"a","timestamp":1,"latitude":0,"longitude":180.1}"#, "longitude"),
            (r#"{"mediaId":"a","timestamp":1,"latitude":0,"longitude":0,"heading":361}"#, "heading"),
            (r#"{"mediaId":"a","timestamp":1,"latitude":0,"longitude":0,"speed":-1}"#, "speed"),
            (r#"{"mediaId":"a","timestamp":1,"latitude":0,"longitude":0,"properties":[]}"#, "properties"),
        ] {
            assert_eq!(reason(text), expected, "{text}");
        }
        let long = format!(r#"{{"mediaId":"{}","timestamp":1,"latitude":0,"longitude":0}}"#, "a".repeat(129));
        assert_eq!(reason(&long), "media_id_too_long");
        let big = format!(
            r#"{{"mediaId":"a","timestamp":1,"latitude":0,"longitude":0,"properties":{{"p":"{}"}}}}"#,
            "p".repeat(1024)
        );
        assert_eq!(reason(&big), "properties");
        assert_eq!(check_ahead(10_001, 0).unwrap_err().reason(), "future");
        assert_eq!(check_ahead(10_000, 0), Ok(()));
    }

    #[test]
    fn protobuf_is_checked_like_json() {
        let nan = Fix { media_id: "a".into(), latitude: f64::NAN, ..Fix::default() };
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
            id in "[^\\x00]{1,40}", timestamp_ms in 0i64..MAX_TIMESTAMP_MS,
            latitude in -90_00000i32..=90_00000, longitude in -180_00000i32..=180_00000,
            heading in proptest::option::of(0u16..=360), speed in proptest::option::of(0u16..=999),
        ) {
            // Decimal places as devices send them: JSON's shortest form of any double may be off by one bit.
            let (latitude, longitude) = (f64::from(latitude) / 1e5, f64::from(longitude) / 1e5);
            let (heading, speed) = (heading.map(f64::from), speed.map(f64::from));
            prop_assume!(id.len() <= MAX_MEDIA_ID_BYTES);
            let fix = Fix { media_id: id, timestamp_ms, latitude, longitude, heading, speed, properties: String::new() };
            prop_assert_eq!(&decode(Format::Json, to_json(&fix).as_bytes()).unwrap(), &fix);
            prop_assert_eq!(&decode(Format::Protobuf, &fix.encode_to_vec()).unwrap(), &fix);
        }
    }
}
