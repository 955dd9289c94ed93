//! Tests of reading, checking and shortening JSON.

use serde::de::MapAccess;

use super::any::FEW_NAMES;
use super::*;
use proptest::prelude::*;

#[derive(Debug, Default, PartialEq)]
struct Outer {
    count: Option<u64>,
    at: Option<i64>,
    speed: Option<f64>,
    title: Option<String>,
    tags: Option<Vec<String>>,
    to: Option<Inner>,
    id: Option<Name>,
    data: Option<String>,
}

#[derive(Debug, Default, PartialEq)]
struct Inner {
    topic: Option<String>,
}

impl<'de> Object<'de> for Outer {
    const FIELDS: &'static [&'static str] = &["count", "at", "speed", "title", "tags", "to", "id", "data"];

    fn take<A: MapAccess<'de>>(&mut self, field: Field<'_, A>) -> Result<(), A::Error> {
        match field.name {
            "count" => self.count = field.scalar()?,
            "at" => self.at = field.scalar()?,
            "speed" => self.speed = field.scalar()?,
            "title" => self.title = field.scalar()?,
            "tags" => self.tags = field.list()?,
            "to" => self.to = field.object()?,
            "id" => self.id = field.scalar()?,
            "data" => self.data = field.raw()?.map(|raw| raw.get().to_owned()),
            name => unreachable!("{name} is not in FIELDS"),
        }
        Ok(())
    }
}

impl<'de> Object<'de> for Inner {
    const FIELDS: &'static [&'static str] = &["topic"];
    const PATH: &'static str = "to.";

    fn take<A: MapAccess<'de>>(&mut self, field: Field<'_, A>) -> Result<(), A::Error> {
        self.topic = field.scalar()?;
        Ok(())
    }
}

fn outer(text: &str) -> Result<Outer, Error> {
    read(text.as_bytes())
}

#[test]
fn compacting_keeps_what_a_text_says_and_writes_letters_as_themselves() {
    let cases = [
        (r#" { "a" : [ 1.50 , "x \" y" ] } "#, r#"{"a":[1.50,"x \" y"]}"#),
        (r#""\u0416\u0436 \u00e9""#, r#""Жж é""#),
        (r#""\ud83d\ude95 a\\u0416""#, r#""🚕 a\\u0416""#),
        (r#""\u0022 \u005c \u000a \u0085 \n""#, r#""\u0022 \u005c \u000a \u0085 \n""#),
        (r#""\ud83d \ude95 \u+041 \u04""#, r#""\ud83d \ude95 \u+041 \u04""#),
        ("\"\\", "\"\\"),
        ("\"\\é", "\"\\é"),
    ];
    for (text, wanted) in cases {
        assert_eq!(compact(text).0, wanted);
    }
    assert_eq!(compact("[[{}]]").1, 3);
}

#[test]
fn a_field_that_is_null_is_absent() {
    let nulls =
        r#"{"count":null,"at":null,"speed":null,"title":null,"tags":null,"to":null,"id":null,"data":null}"#;
    assert_eq!(outer(nulls), Ok(Outer::default()));
    let inner = Outer { to: Some(Inner { topic: None }), ..Outer::default() };
    assert_eq!(outer(r#"{"to":{"topic":null}}"#), Ok(inner));
}

#[test]
fn a_number_without_a_fraction_is_an_integer() {
    for text in ["7", "7.0", "7e0", "70e-1"] {
        let read = outer(&format!(r#"{{"count":{text},"at":{text},"speed":{text},"id":{text}}}"#)).unwrap();
        assert_eq!((read.count, read.at, read.speed), (Some(7), Some(7), Some(7.0)), "{text}");
        assert_eq!(read.id, Some(Name("7".to_owned())), "{text}");
    }
    assert_eq!(outer(r#"{"at":1796071271698.0}"#).unwrap().at, Some(1_796_071_271_698));
    // What checks the range says what the range is.
    assert_eq!(outer(r#"{"at":1e30,"count":1e30}"#).unwrap().at, Some(i64::MAX));
}

#[test]
fn each_mistake_names_its_field_in_the_words_of_json() {
    for (text, message) in [
        (r#"{"speed":"1"}"#, "`speed` must be a number, is a string"),
        (r#"{"speed":true}"#, "`speed` must be a number, is true"),
        (r#"{"speed":[1]}"#, "`speed` must be a number, is an array"),
        (r#"{"at":1.5}"#, "`at` must be an integer, is 1.5"),
        (r#"{"count":-1}"#, "`count` must be an integer from 0 up, is -1"),
        (r#"{"title":7}"#, "`title` must be a string, is 7"),
        (r#"{"title":{}}"#, "`title` must be a string, is an object"),
        (r#"{"id":1e20}"#, "`id` must be a string or an integer of 64 bits, is 100000000000000000000"),
        (r#"{"tags":"a"}"#, "`tags` must be an array, is a string"),
        (r#"{"tags":[1]}"#, "`tags` must be a string, is 1"),
        (r#"{"tags":[null]}"#, "`tags` must be an array without null, is one with it"),
        (r#"{"to":["news"]}"#, "`to` must be an object, is an array"),
        (r#"{"to":7}"#, "`to` must be an object, is a number"),
        (r#"{"to":{"topic":7}}"#, "`to.topic` must be a string, is 7"),
        (r#"{"to":{"colour":7}}"#, "there is no field `to.colour`, but: topic"),
        (r#"{"at":1,"speed":1,"at":2}"#, "`at` stands twice"),
        (r#"{"to":null,"to":{}}"#, "`to` stands twice"),
        (r#"{"to":{"topic":"a","topic":"a"}}"#, "`to.topic` stands twice"),
        (
            r#"[{"at":1}]"#,
            "it must be one object, is an array: send each of its elements as a record or request of its own",
        ),
        ("7", "it must be an object, is a number"),
        ("null", "it must be an object, is null"),
    ] {
        assert_eq!(outer(text), Err(Error::WrongShape(message.to_owned())), "{text}");
    }
    for text in ["", "{", r#"{"at":1}{"#, r#"{"at":NaN}"#, r#"{"data":}"#] {
        assert!(matches!(outer(text), Err(Error::NotJson(_))), "{text}");
    }
}

#[test]
fn a_byte_order_mark_is_skipped() {
    assert_eq!(outer("\u{feff}{\"at\":1}").unwrap().at, Some(1));
    assert!(outer("\u{feff}\u{feff}{\"at\":1}").is_err());
}

#[test]
fn a_name_that_stands_twice_is_found_among_many() {
    let names = |count: usize| (0..count).map(|n| format!(r#""{n}":{n}"#)).collect::<Vec<_>>().join(",");
    for count in [1, FEW_NAMES, FEW_NAMES + 1, 1000] {
        let text = names(count);
        assert_eq!(check_any(&format!("{{{text}}}")), Ok(()));
        for twice in [0, count / 2, count - 1] {
            let error = check_any(&format!(r#"{{{text},"{twice}":0}}"#)).unwrap_err();
            assert_eq!(error.to_string(), format!("`{twice}` stands twice"));
        }
    }
}

#[test]
fn no_receiver_reads_another_text_than_the_one_that_was_checked() {
    assert_eq!(check_any(r#"[{"a":1,"b":{"a":2}},"a",null,1.5]"#), Ok(()));
    for text in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"\u0061":2}}]"#, r#""\ud800""#, "1e999", "[", "1 2"] {
        assert!(check_any(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(count: u64, at: i64, speed in -1e9..1e9, title in "(?s).{0,20}", tags in proptest::collection::vec(".{0,5}", 0..3)) {
        let text = serde_json::json!({"count": count, "at": at, "speed": speed, "title": title, "tags": tags}).to_string();
        let read = outer(&text).unwrap();
        prop_assert_eq!((read.count, read.at, read.title, read.tags), (Some(count), Some(at), Some(title), Some(tags)));
        // JSON's shortest form of any double may be off by one bit.
        let off: f64 = read.speed.unwrap() - speed;
        prop_assert!(off.abs() <= 1e-6);
    }

    #[test]
    fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read::<Outer>(&bytes);
    }

    #[test]
    fn no_json_makes_reading_panic(text in r#"\{"(at|count|speed|title|tags|to|id|data)":[\[\]{}",0-9.e-]{0,12}\}"#) {
        let _ = outer(&text);
        let _ = check_any(&text);
    }
}
