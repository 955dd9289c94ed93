//! The formats of values on Kafka.

use serde::Deserialize;

use crate::json::BYTE_ORDER_MARK;

/// The format of the values of a Kafka topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// JSON, with the names and rules of [`crate::location`] or [`crate::notification`].
    Json,
    /// A message of `proto/tutti/v1`.
    Protobuf,
}

impl Format {
    /// Returns the format that the `content-type` header of a record names, or `None` if it names neither format.
    pub fn of_content_type(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        match text.split(';').next()?.trim().to_ascii_lowercase().as_str() {
            "application/json" => Some(Self::Json),
            "application/protobuf" | "application/x-protobuf" => Some(Self::Protobuf),
            _ => None,
        }
    }

    /// Returns JSON if a value begins like a JSON object or array, or with a byte-order mark. No protobuf message of
    /// ours begins like that.
    pub fn of_value(value: &[u8]) -> Option<Self> {
        (value.starts_with(b"{") || value.starts_with(b"[") || value.starts_with(BYTE_ORDER_MARK))
            .then_some(Self::Json)
    }
}
