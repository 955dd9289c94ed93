//! Tests of decoding, checking and encoding notifications.

use crate::Recipients;

use super::*;
use proptest::prelude::*;

fn json(text: &str) -> Result<Notification, Invalid> {
    decode(Format::Json, text.as_bytes())
}

#[test]
fn data_go_through_to_the_last_digit_and_on_one_line() {
    let n = json("{\"to\":{\"users\":[\"7\"]},\"data\":{\n \"a b\" : 12345678901234567890123.50,\t\"c\":\"\\\"x\\\\\" }}").unwrap();
    assert_eq!(n.data, r#"{"a b":12345678901234567890123.50,"c":"\"x\\"}"#);
    let text = to_json(&n, None, None, false);
    assert!(text.ends_with(r#","data":{"a b":12345678901234567890123.50,"c":"\"x\\"}}"#), "{text}");
    let odd = Notification { id: "a".into(), data: "{".into(), ..Notification::default() };
    assert_eq!(
        to_json(&odd, Some("news"), Some(2), true),
        r#"{"id":"a","createdAt":0,"expiresAt":0,"topic":"news","unread":2,"read":true}"#
    );
}

#[test]
fn a_notification_with_null_for_all_that_is_absent_is_the_same_without() {
    let text = r#"{"id":null,"to":{"users":["7"],"topic":null},"category":null,"title":"a","body":null,"data":null,"ttlSeconds":null}"#;
    assert_eq!(json(text), json(r#"{"to":{"users":["7"]},"title":"a"}"#));
    let text = r#"{"to":{"users":null,"topic":"news"},"title":null,"body":"a","ttlSeconds":60.0}"#;
    assert_eq!(json(text), json(r#"{"to":{"topic":"news"},"body":"a","ttlSeconds":60}"#));
}

#[test]
fn each_kind_of_garbage_has_its_reason() {
    let users = (0..1001).map(|n| n.to_string()).collect::<Vec<_>>();
    for (text, expected) in [
        ("", "not_json"),
        ("[]", "wrong_shape"),
        (r#"{"title":"a"}"#, "wrong_shape"),
        (r#"{"to":{"users":["7"]},"title":"a","colour":1}"#, "wrong_shape"),
        (r#"{"to":{},"title":"a"}"#, "recipients"),
        (r#"{"to":{"users":["7"],"topic":"news"},"title":"a"}"#, "recipients"),
        (r#"{"to":{"users":[""]},"title":"a"}"#, "user"),
        (r#"{"to":{"topic":"a b"},"title":"a"}"#, "topic"),
        (r#"{"to":{"users":["7"]}}"#, "empty"),
        (r#"{"to":{"users":["7"]},"title":"a","ttlSeconds":0}"#, "ttl"),
        (r#"{"to":{"users":["7"]},"title":"a","id":"a b"}"#, "id"),
        (&format!(r#"{{"to":{{"users":["7"]}},"body":"{}"}}"#, "x".repeat(4097)), "text"),
        (&format!(r#"{{"to":{{"users":["7"]}},"data":"{}"}}"#, "x".repeat(16_384)), "data"),
        (r#"{"to":{"users":["7"]},"data":"\ud800"}"#, "data_not_json"),
        (r#"{"to":{"users":["7"]},"data":[1e99999]}"#, "data_not_json"),
        (r#"{"to":{"users":["7"]},"data":[{"a":1,"a":2}]}"#, "data_not_json"),
        (r#"[null,{"users":["7"]},null,"a"]"#, "wrong_shape"),
        (r#"{"to":[["7"]],"title":"a"}"#, "wrong_shape"),
        (r#"{"to":{"users":["7"]},"title":"a","title":"a"}"#, "wrong_shape"),
        (
            &format!(r#"{{"to":{{"users":["7"]}},"data":{}1{}}}"#, "[".repeat(33), "]".repeat(33)),
            "data_depth",
        ),
        (&serde_json::json!({ "to": { "users": users }, "title": "a" }).to_string(), "too_many_users"),
    ] {
        assert_eq!(json(text).unwrap_err().reason(), expected, "{text}");
    }
    let bad = Notification {
        to: Some(Recipients { topic: "news".into(), ..Recipients::default() }),
        data: "{".into(),
        ..Notification::default()
    };
    assert_eq!(decode(Format::Protobuf, &bad.encode_to_vec()).unwrap_err().reason(), "data_not_json");
    assert_eq!(decode(Format::Protobuf, &[0xff]).unwrap_err().reason(), "not_protobuf");
}

proptest! {
    #[test]
    fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(Format::Json, &bytes);
        let _ = decode(Format::Protobuf, &bytes);
    }

    #[test]
    fn any_text_arrives_as_it_was_sent(title in ".{0,40}", body in "(?s).{0,40}", user in "(?s).{1,40}") {
        prop_assume!(!title.is_empty() || !body.is_empty());
        let sent = serde_json::json!({ "to": { "users": [user] }, "title": title, "body": body }).to_string();
        let n = json(&sent).unwrap();
        prop_assert_eq!((&n.title, &n.body), (&title, &body));
        let shown = to_json(&n, None, None, false);
        prop_assert!(!shown.contains(['\n', '\r']));
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        prop_assert_eq!(shown["body"].as_str().unwrap_or_default(), body);
    }
}
