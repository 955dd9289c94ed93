//! Notifications: what arrives on Kafka or in a request, checked, and the JSON that browsers receive.
//!
//! [`decode`] reads JSON or protobuf and checks it ([`checked`]); what is refused is an [`Invalid`]. The checked
//! [`Notification`] is filed in the mailbox of each of its [`addresses`], and leaves as [`to_json`].

mod address;
mod invalid;
mod json;
mod limits;
#[cfg(test)]
mod tests;

use prost::Message as _;
use sha1::{Digest as _, Sha1};

pub use address::{addresses, topic_address, user_address};
pub use invalid::Invalid;
pub use json::to_json;
pub use limits::{
    MAX_CATEGORY_BYTES, MAX_DATA_BYTES, MAX_DATA_DEPTH, MAX_ID_BYTES, MAX_TEXT_BYTES, MAX_TOPIC_BYTES,
    MAX_TTL_SECONDS, MAX_USER_BYTES, MAX_USERS,
};

use crate::{Format, Notification};
use json::SentJson;

/// Reads a notification from Kafka or from a request, and checks it. The id may be absent.
///
/// # Errors
/// Returns what is wrong with the value.
pub fn decode(format: Format, value: &[u8]) -> Result<Notification, Invalid> {
    let notification = match format {
        Format::Json => crate::json::read::<SentJson<'_>>(value)?.into_notification()?,
        Format::Protobuf => Notification::decode(value).map_err(|e| Invalid::NotProtobuf(e.to_string()))?,
    };
    checked(notification)
}

/// Checks a notification and returns it with compact `data`, without white space between the parts.
///
/// # Errors
/// Returns the first thing that is wrong with the notification.
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
        let (data, depth) = crate::json::compact(&n.data);
        if data.len() > MAX_DATA_BYTES {
            return Err(Invalid::Data(data.len()));
        }
        if depth > MAX_DATA_DEPTH {
            return Err(Invalid::DataDepth(depth));
        }
        // Raw JSON may hold what some receivers cannot read: halves of surrogate pairs, numbers beyond the range of a
        // double, a name that occurs twice.
        crate::json::check_any(&n.data).map_err(|e| Invalid::DataNotJson(e.to_string()))?;
        n.data = data;
    }
    Ok(n)
}

/// Returns whether a text can be the name of a user.
pub fn is_user(text: &str) -> bool {
    (1..=MAX_USER_BYTES).contains(&text.len())
}

/// Returns whether a text can be the name of a topic for users.
pub fn is_topic(text: &str) -> bool {
    let fits = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    (1..=MAX_TOPIC_BYTES).contains(&text.len()) && text.bytes().all(fits)
}

/// Returns whether a text can be the id of a notification.
pub fn is_id(text: &str) -> bool {
    let fits = |c: u8| c.is_ascii_alphanumeric() || b"._~:-".contains(&c);
    (1..=MAX_ID_BYTES).contains(&text.len()) && text.bytes().all(fits)
}

/// Returns the id of a record of Kafka that has none. It is a hash of the place of the record (`source` is cluster,
/// topic and partition) and of its timestamp, which differs where a topic was deleted and created again.
pub fn id_of_record(source: &str, offset: i64, timestamp_ms: Option<i64>) -> String {
    let hash = Sha1::digest(format!("{source}/{offset}/{}", timestamp_ms.unwrap_or(-1)));
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
