//! What can be wrong with a position.

use super::limits::{MAX_AHEAD_MS, MAX_MEDIA_ID_BYTES, MAX_PROPERTIES_BYTES};
use crate::json;
use crate::time::WrongTime;

/// Why a value is not a fix. [`Invalid::reason`] is the word for metrics and headers; the `Display` form is a sentence
/// for people.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Invalid {
    /// The value is not JSON.
    #[error("the value is not JSON: {0}")]
    NotJson(String),
    /// The value is JSON, but not an object with the right fields and types.
    #[error("the JSON is not a fix: {0}")]
    WrongShape(String),
    /// The value is not a protobuf `Fix`.
    #[error("the value is not a protobuf Fix: {0}")]
    NotProtobuf(String),
    /// The mediaId is empty.
    #[error("mediaId is empty")]
    NoMediaId,
    /// The mediaId is longer than [`MAX_MEDIA_ID_BYTES`].
    #[error("mediaId has {0} bytes, at most {MAX_MEDIA_ID_BYTES} are allowed")]
    MediaIdTooLong(usize),
    /// The latitude is out of range or NaN.
    #[error("latitude {0} is not within -90 to 90")]
    Latitude(f64),
    /// The longitude is out of range or NaN.
    #[error("longitude {0} is not within -180 to 180")]
    Longitude(f64),
    /// The `properties` are not a JSON object or longer than [`MAX_PROPERTIES_BYTES`].
    #[error("properties are not a JSON object of at most {MAX_PROPERTIES_BYTES} bytes: {0}")]
    Properties(String),
    /// The timestamp must be in another unit.
    #[error("timestamp {0}")]
    Timestamp(WrongTime),
    /// The timestamp is further ahead than [`MAX_AHEAD_MS`].
    #[error("timestamp is {0} ms ahead, at most {MAX_AHEAD_MS} ms are allowed")]
    Future(i64),
}

impl Invalid {
    /// Returns the stable word for the kind of error, for metrics and the `tutti-reason` header.
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
