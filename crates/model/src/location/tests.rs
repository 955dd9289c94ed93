//! Tests of decoding and encoding positions.

use crate::time;

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
    for (heading, speed) in [(511.0, 1023.0), (456.0, -1.0), (-1.0, f64::INFINITY), (f64::NAN, f64::NAN)] {
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
