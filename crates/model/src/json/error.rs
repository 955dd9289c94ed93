//! What can be wrong with a text.

/// The maximum length of a message about a text, in bytes: messages go to headers, logs and answers.
const MAX_MESSAGE_BYTES: usize = 200;
/// The maximum length to which a message quotes an unknown name, in bytes.
pub(super) const MAX_QUOTED_BYTES: usize = 64;

/// Why a text is not the object that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is not JSON.
    #[error("{0}")]
    NotJson(String),
    /// The text is JSON, but not an object with the right fields and types.
    #[error("{0}")]
    WrongShape(String),
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        let mut text = error.to_string();
        if error.classify() != serde_json::error::Category::Data {
            text.truncate(text.floor_char_boundary(MAX_MESSAGE_BYTES));
            return Self::NotJson(text);
        }
        // The message names the field, so the line and column say nothing more.
        let place = format!(" at line {} column {}", error.line(), error.column());
        text.truncate(text.strip_suffix(&place).unwrap_or(&text).len());
        text.truncate(text.floor_char_boundary(MAX_MESSAGE_BYTES));
        Self::WrongShape(text)
    }
}
