//! Waiting rooms: names, settings, the claims of tokens and passes, and the JSON forms of rooms, tickets and events.
//!
//! An administrator sends settings as JSON or by gRPC; both are checked and completed with the same defaults
//! (`settings.rs`). The service of the waiting room writes each change as a [`RoomEvent`](crate::RoomEvent) to Redis and
//! Kafka ([`event_to_json`]); it answers with the messages of [`crate::queue`], which the edge writes as JSON
//! ([`room_to_json`], [`ticket_to_json`]).

mod claims;
mod eta;
mod json;
mod settings;
mod words;

pub use claims::{Claims, PASS_AUDIENCE, TICKET_AUDIENCE};
pub use eta::eta_seconds;
pub use json::{event_to_json, room_to_json, settings_to_json, ticket_to_json};
pub use settings::{
    all_changed, changes_from_grpc, changes_from_json, check, defaults, settings_from_json, with_defaults,
};

/// The maximum length of the name of a room, in characters.
pub const MAX_NAME_CHARS: usize = 64;

/// Returns whether a text can be the name of a room. Names occur in URLs and in keys of Redis and Kafka.
pub fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    (1..=MAX_NAME_CHARS).contains(&text.len()) && text.chars().all(inner) && !text.starts_with(['-', '_'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["a", "sale-2026", "x_1", &"a".repeat(64)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", "_a", "A", "a b", "a{b}", "ä", "a/b", &"a".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
