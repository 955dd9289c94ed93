//! The JSON forms of a notification.

use serde::Serialize;
use serde::de::MapAccess;
use serde_json::value::RawValue;

use super::invalid::Invalid;
use crate::json::{self, Field, Object};
use crate::{Notification, Recipients};

/// Returns the JSON object that browsers receive for a notification, on one line.
///
/// Empty fields are left out. `data` is exactly as it was sent, to the last digit. `topic` is the name of the topic if
/// the notification was sent to a topic; `unread` is the number of unread notifications of the user if it was sent to a
/// user.
pub fn to_json(n: &Notification, topic: Option<&str>, unread: Option<u32>, read: bool) -> String {
    // Another version may have written other text; only a JSON text without line feeds is shown.
    let data =
        serde_json::from_str(&n.data).ok().filter(|data: &&RawValue| !data.get().contains(['\n', '\r']));
    let json = NotificationJson {
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
    serde_json::to_string(&json).expect("strings and whole numbers always serialise")
}

/// A notification as browsers receive it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NotificationJson<'a> {
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

/// A notification as back ends write it.
#[derive(Default)]
pub(super) struct SentJson<'a> {
    id: Option<String>,
    to: Option<RecipientsJson>,
    category: Option<String>,
    title: Option<String>,
    body: Option<String>,
    data: Option<&'a RawValue>,
    ttl_seconds: Option<u64>,
}

impl<'de: 'a, 'a> Object<'de> for SentJson<'a> {
    const FIELDS: &'static [&'static str] = &["id", "to", "category", "title", "body", "data", "ttlSeconds"];

    fn take<A: MapAccess<'de>>(&mut self, field: Field<'_, A>) -> Result<(), A::Error> {
        match field.name {
            "id" => self.id = field.scalar()?,
            "to" => self.to = field.object()?,
            "category" => self.category = field.scalar()?,
            "title" => self.title = field.scalar()?,
            "body" => self.body = field.scalar()?,
            "data" => self.data = field.raw()?,
            "ttlSeconds" => self.ttl_seconds = field.scalar()?,
            name => unreachable!("{name} is not in FIELDS"),
        }
        Ok(())
    }
}

/// The recipients as back ends write them.
#[derive(Default)]
struct RecipientsJson {
    users: Option<Vec<String>>,
    topic: Option<String>,
}

impl<'de> Object<'de> for RecipientsJson {
    const FIELDS: &'static [&'static str] = &["users", "topic"];
    const PATH: &'static str = "to.";

    fn take<A: MapAccess<'de>>(&mut self, field: Field<'_, A>) -> Result<(), A::Error> {
        match field.name {
            "users" => self.users = field.list()?,
            "topic" => self.topic = field.scalar()?,
            name => unreachable!("{name} is not in FIELDS"),
        }
        Ok(())
    }
}

impl SentJson<'_> {
    /// Checks what only JSON can express: a time to live of 0, and an empty id, which protobuf cannot tell from none.
    pub(super) fn into_notification(self) -> Result<Notification, Invalid> {
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
