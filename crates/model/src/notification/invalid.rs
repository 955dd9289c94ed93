//! What can be wrong with a notification.

use super::limits::{
    MAX_CATEGORY_BYTES, MAX_DATA_BYTES, MAX_DATA_DEPTH, MAX_ID_BYTES, MAX_TEXT_BYTES, MAX_TOPIC_BYTES,
    MAX_TTL_SECONDS, MAX_USER_BYTES, MAX_USERS,
};
use crate::json;

/// Why a value is not a notification. [`Invalid::reason`] is the word for metrics and headers; the `Display` form is a
/// sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The value is not JSON.
    #[error("it is not JSON: {0}")]
    NotJson(String),
    /// The value is JSON, but not an object with the right fields and types.
    #[error("the JSON is not a notification: {0}")]
    WrongShape(String),
    /// The value is not a protobuf `Notification`.
    #[error("it is not a protobuf Notification: {0}")]
    NotProtobuf(String),
    /// The notification names neither users nor a topic, or both.
    #[error(r#"to must name users or a topic: {{"users":["7"]}} or {{"topic":"news"}}"#)]
    Recipients,
    /// The notification names more users than [`MAX_USERS`].
    #[error("to.users has {0} users, at most {MAX_USERS} are allowed")]
    TooManyUsers(usize),
    /// The name of a user is empty or too long.
    #[error("a user's name has {0} bytes; it must have 1 to {MAX_USER_BYTES}")]
    User(usize),
    /// The name of a topic has characters that are not allowed, or too many.
    #[error("a topic's name has 1 to {MAX_TOPIC_BYTES} of the characters A-Z a-z 0-9 . _ -")]
    Topic,
    /// The id has characters that are not allowed, or too many.
    #[error("an id has 1 to {MAX_ID_BYTES} of the characters A-Z a-z 0-9 . _ ~ : -")]
    Id,
    /// The notification has neither title nor body nor data.
    #[error("a notification needs a title, a body or data")]
    Empty,
    /// Title and body are longer than [`MAX_TEXT_BYTES`] together.
    #[error("title and body have {0} bytes, at most {MAX_TEXT_BYTES} are allowed")]
    Text(usize),
    /// `data` is longer than [`MAX_DATA_BYTES`].
    #[error("data has {0} bytes, at most {MAX_DATA_BYTES} are allowed")]
    Data(usize),
    /// `data` is not JSON that every receiver reads alike: text is Unicode, numbers are finite as doubles, and each name
    /// occurs once in an object.
    #[error("data is not JSON that every receiver can read: {0}")]
    DataNotJson(String),
    /// `data` is nested deeper than [`MAX_DATA_DEPTH`].
    #[error("data is nested {0} deep, at most {MAX_DATA_DEPTH} are allowed")]
    DataDepth(usize),
    /// The category is longer than [`MAX_CATEGORY_BYTES`].
    #[error("category has {0} bytes, at most {MAX_CATEGORY_BYTES} are allowed")]
    Category(usize),
    /// The time to live is 0 or longer than [`MAX_TTL_SECONDS`].
    #[error("ttlSeconds must be 1 to {MAX_TTL_SECONDS}")]
    Ttl,
}

impl Invalid {
    /// Returns the stable word for the kind of error, for metrics and the `tutti-reason` header.
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
