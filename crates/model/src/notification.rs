//! Notifications: what arrives on Kafka, checked, and the JSON that browsers get.

use prost::Message as _;
use serde::Serialize;
use serde::de::MapAccess;
use serde_json::value::RawValue;
use sha1::{Digest as _, Sha1};

use crate::json::{self, Field, Object};
use crate::location::Format;
use crate::{Notification, Recipients};

/// A notification goes to at most so many users at once.
pub const MAX_USERS: usize = 1000;
/// The name of a user may be this long, in bytes of UTF-8.
pub const MAX_USER_BYTES: usize = 256;
/// The name of a topic may be this long.
pub const MAX_TOPIC_BYTES: usize = 64;
/// Title and body may be this long together, in bytes of UTF-8.
pub const MAX_TEXT_BYTES: usize = 4096;
/// `data` may be this long, in bytes of JSON without blanks between its parts.
pub const MAX_DATA_BYTES: usize = 16 * 1024;
/// `data` may be nested so deep: receivers have limits from 64 up.
pub const MAX_DATA_DEPTH: usize = 32;
/// The category may be this long, in bytes of UTF-8.
pub const MAX_CATEGORY_BYTES: usize = 64;
/// An id may be this long.
pub const MAX_ID_BYTES: usize = 128;
/// The longest time to live: ten years.
pub const MAX_TTL_SECONDS: u64 = 315_360_000;

/// Why something is not a notification. [`Invalid::reason`] is the word for metrics and headers, the
/// `Display` form says more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Not a JSON text.
    #[error("it is not JSON: {0}")]
    NotJson(String),
    /// JSON, but not an object with the right fields and types.
    #[error("the JSON is not a notification: {0}")]
    WrongShape(String),
    /// Not a protobuf `Notification`.
    #[error("it is not a protobuf Notification: {0}")]
    NotProtobuf(String),
    /// Neither users nor a topic, or both.
    #[error(r#"to must name users or a topic: {{"users":["7"]}} or {{"topic":"news"}}"#)]
    Recipients,
    /// More users than [`MAX_USERS`].
    #[error("to.users has {0} users, at most {MAX_USERS} are allowed")]
    TooManyUsers(usize),
    /// A user's name is empty or too long.
    #[error("a user's name has {0} bytes; it must have 1 to {MAX_USER_BYTES}")]
    User(usize),
    /// A topic's name has other characters, or too many.
    #[error("a topic's name has 1 to {MAX_TOPIC_BYTES} of the characters A-Z a-z 0-9 . _ -")]
    Topic,
    /// An id has other characters, or too many.
    #[error("an id has 1 to {MAX_ID_BYTES} of the characters A-Z a-z 0-9 . _ ~ : -")]
    Id,
    /// Neither title nor body nor data.
    #[error("a notification needs a title, a body or data")]
    Empty,
    /// Title and body are too long.
    #[error("title and body have {0} bytes, at most {MAX_TEXT_BYTES} are allowed")]
    Text(usize),
    /// `data` is too long.
    #[error("data has {0} bytes, at most {MAX_DATA_BYTES} are allowed")]
    Data(usize),
    /// `data` is no JSON, or not such as every receiver reads alike: of text that is Unicode, of numbers that
    /// are finite as doubles, with each name once in an object.
    #[error("data is not JSON that every receiver can read: {0}")]
    DataNotJson(String),
    /// `data` is nested too deep.
    #[error("data is nested {0} deep, at most {MAX_DATA_DEPTH} are allowed")]
    DataDepth(usize),
    /// The category is too long.
    #[error("category has {0} bytes, at most {MAX_CATEGORY_BYTES} are allowed")]
    Category(usize),
    /// The time to live is too long.
    #[error("ttlSeconds must be 1 to {MAX_TTL_SECONDS}")]
    Ttl,
}

impl Invalid {
    /// One stable word for each kind, for metrics and the `tutti-reason` header.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotJson(_) => "not_json",
            Self::WrongShape(_) => "wrong_shape",
            Self::NotProtobuf(_) => "not_protobuf",
            Self::Recipients => "recipients",
            Self::TooManyUsers(_) => "too_many_users",
            Self::User(_) => "user",
            Self::Topic => "topic",
            Self::Id => "id",
            Self::Empty => "empty",
            Self::Text(_) => "text",
            Self::Data(_) => "data",
            Self::DataNotJson(_) => "data_not_json",
            Self::DataDepth(_) => "data_depth",
            Self::Category(_) => "category",
            Self::Ttl => "ttl",
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

/// Reads a notification as it stands on Kafka or in a request, and checks it. Its id may be absent.
///
/// # Errors
/// What is wrong with it, in an [`Invalid`].
pub fn decode(format: Format, value: &[u8]) -> Result<Notification, Invalid> {
    let notification = match format {
        Format::Json => json::read::<Json<'_>>(value)?.into_notification()?,
        Format::Protobuf => Notification::decode(value).map_err(|e| Invalid::NotProtobuf(e.to_string()))?,
    };
    checked(notification)
}

/// Checks a notification; its data come back without blanks between their parts.
///
/// # Errors
/// What is wrong with it, in an [`Invalid`].
pub fn checked(mut n: Notification) -> Result<Notification, Invalid> {
    let to = n.to.as_ref().ok_or(Invalid::Recipients)?;
    match (to.users.len(), to.topic.is_empty()) {
        (0, false) if is_topic(&to.topic) => {}
        (0, false) => return Err(Invalid::Topic),
        (1.., true) => {}
        _ => return Err(Invalid::Recipients),
    }
    if to.users.len() > MAX_USERS {
        return Err(Invalid::TooManyUsers(to.users.len()));
    }
    if let Some(user) = to.users.iter().find(|user| !is_user(user)) {
        return Err(Invalid::User(user.len()));
    }
    if !n.id.is_empty() && !is_id(&n.id) {
        return Err(Invalid::Id);
    }
    if n.title.is_empty() && n.body.is_empty() && n.data.is_empty() {
        return Err(Invalid::Empty);
    }
    if n.title.len() + n.body.len() > MAX_TEXT_BYTES {
        return Err(Invalid::Text(n.title.len() + n.body.len()));
    }
    if n.category.len() > MAX_CATEGORY_BYTES {
        return Err(Invalid::Category(n.category.len()));
    }
    if n.ttl_seconds > MAX_TTL_SECONDS {
        return Err(Invalid::Ttl);
    }
    if !n.data.is_empty() {
        let (data, depth) = json::compact(&n.data);
        if data.len() > MAX_DATA_BYTES {
            return Err(Invalid::Data(data.len()));
        }
        if depth > MAX_DATA_DEPTH {
            return Err(Invalid::DataDepth(depth));
        }
        // Raw JSON may hold what not everybody can hold: halves of surrogate pairs, numbers beyond all bounds, a
        // name that stands twice.
        json::check_any(&n.data).map_err(|e| Invalid::DataNotJson(e.to_string()))?;
        n.data = data;
    }
    Ok(n)
}

/// Whether a text can be a user.
pub fn is_user(text: &str) -> bool {
    (1..=MAX_USER_BYTES).contains(&text.len())
}

/// Whether a text can be a topic for users.
pub fn is_topic(text: &str) -> bool {
    let fits = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    (1..=MAX_TOPIC_BYTES).contains(&text.len()) && text.bytes().all(fits)
}

/// Whether a text can be a notification's id.
pub fn is_id(text: &str) -> bool {
    let fits = |c: u8| c.is_ascii_alphanumeric() || b"._~:-".contains(&c);
    (1..=MAX_ID_BYTES).contains(&text.len()) && text.bytes().all(fits)
}

/// The id of a record that came without one: where it lies on Kafka, and since when, tells it from all
/// others, also where the topic was made anew.
pub fn id_of_record(source: &str, offset: i64, timestamp_ms: Option<i64>) -> String {
    let hash = Sha1::digest(format!("{source}/{offset}/{}", timestamp_ms.unwrap_or(-1)));
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// What a notification's mailboxes are called.
pub fn addresses(to: &Recipients) -> impl Iterator<Item = String> {
    let topic = (!to.topic.is_empty()).then(|| topic_address(&to.topic));
    to.users.iter().map(|user| user_address(user)).chain(topic)
}

/// A user's mailbox.
pub fn user_address(user: &str) -> String {
    format!("user:{user}")
}

/// The mailbox of a topic for users.
pub fn topic_address(topic: &str) -> String {
    format!("topic:{topic}")
}

/// A notification as browsers get it: a JSON object on one line. Its fields that are empty are left out; its
/// data are as they were sent, to the last digit. Of a topic's, `topic` names it; of a user's own, `unread`
/// says how many are.
pub fn to_json(n: &Notification, topic: Option<&str>, unread: Option<u32>, read: bool) -> String {
    // What another version of the code wrote is shown only if it is what we would write.
    let data =
        serde_json::from_str(&n.data).ok().filter(|data: &&RawValue| !data.get().contains(['\n', '\r']));
    let told = Told {
        id: &n.id,
        category: &n.category,
        title: &n.title,
        body: &n.body,
        created_at: n.created_at_ms,
        expires_at: n.expires_at_ms,
        topic,
        unread,
        read,
        data,
    };
    serde_json::to_string(&told).expect("strings and whole numbers always serialise")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    category: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    title: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    body: &'a str,
    created_at: i64,
    expires_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unread: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    read: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

#[derive(Default)]
struct Json<'a> {
    id: Option<String>,
    to: Option<JsonTo>,
    category: Option<String>,
    title: Option<String>,
    body: Option<String>,
    data: Option<&'a RawValue>,
    ttl_seconds: Option<u64>,
}

impl<'de: 'a, 'a> Object<'de> for Json<'a> {
    const FIELDS: &'static [&'static str] = &["id", "to", "category", "title", "body", "data", "ttlSeconds"];

    fn take<A: MapAccess<'de>>(&mut self, field: Field<'_, A>) -> Result<(), A::Error> {
        match field.name {
            "id" => self.id = field.scalar()?,
            "to" => self.to = field.object()?,
            "category" => self.category = field.scalar()?,
            "title" => self.title = field.scalar()?,
            "body" => self.body = field.scalar()?,
            "data" => self.data = field.raw()?,
            _ => self.ttl_seconds = field.scalar()?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct JsonTo {
    users: Option<Vec<String>>,
    topic: Option<String>,
}

impl<'de> Object<'de> for JsonTo {
    const FIELDS: &'static [&'static str] = &["users", "topic"];
    const PATH: &'static str = "to.";

    fn take<A: MapAccess<'de>>(&mut self, field: Field<'_, A>) -> Result<(), A::Error> {
        match field.name {
            "users" => self.users = field.list()?,
            _ => self.topic = field.scalar()?,
        }
        Ok(())
    }
}

impl Json<'_> {
    fn into_notification(self) -> Result<Notification, Invalid> {
        if self.ttl_seconds == Some(0) {
            return Err(Invalid::Ttl);
        }
        if self.id.as_ref().is_some_and(String::is_empty) {
            return Err(Invalid::Id);
        }
        let to = json::required(self.to, "to")?;
        Ok(Notification {
            id: self.id.unwrap_or_default(),
            to: Some(Recipients { users: to.users.unwrap_or_default(), topic: to.topic.unwrap_or_default() }),
            category: self.category.unwrap_or_default(),
            title: self.title.unwrap_or_default(),
            body: self.body.unwrap_or_default(),
            data: self.data.map(|data| data.get().to_owned()).unwrap_or_default(),
            ttl_seconds: self.ttl_seconds.unwrap_or(0),
            created_at_ms: 0,
            expires_at_ms: 0,
        })
    }
}

#[cfg(test)]
mod tests {
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
            let told = to_json(&n, None, None, false);
            prop_assert!(!told.contains(['\n', '\r']));
            let told: serde_json::Value = serde_json::from_str(&told).unwrap();
            prop_assert_eq!(told["body"].as_str().unwrap_or_default(), body);
        }
    }
}
