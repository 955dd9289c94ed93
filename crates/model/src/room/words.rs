//! The words for the states of rooms and tickets in JSON.

use crate::{GoneReason, Mode};

impl Mode {
    /// Returns the word for the mode.
    pub fn as_word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Closed => "closed",
        }
    }
}

impl GoneReason {
    /// Returns the word for the reason.
    pub fn as_word(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Released => "released",
            Self::Removed => "removed",
            Self::NoShow => "no_show",
            Self::SessionOver => "session_over",
            Self::Away => "away",
            Self::Unknown => "unknown",
        }
    }
}
