//! The names of the events that browsers receive by SSE, and the reasons of a `reset`.
//!
//! Clients and back ends depend on these texts: they never change.

use std::fmt;

/// First event of a stream, repeated while nothing else is sent: the edge is alive.
pub const HEARTBEAT: &str = "heartbeat";
/// Only event of a stream that the edge cannot serve at the moment: the client tries again later.
pub const BUSY: &str = "busy";
/// Last event of a stream that the edge ends: the client connects again with the last id.
pub const RECONNECT: &str = "reconnect";
/// Last event of a stream that is over for good: the client does not connect again.
pub const END: &str = "end";
/// The client drops what it was shown, because the stream cannot continue without a gap.
pub const RESET: &str = "reset";
/// Whether the stream is live or stale.
pub const STATUS: &str = "status";

/// Map: fixes, the oldest first.
pub const LIVE_MAP_LOCATION: &str = "liveMapLocation";
/// Map: devices that are no longer shown.
pub const LIVE_MAP_REMOVED: &str = "liveMapRemoved";
/// Map: counts of devices by cell.
pub const LIVE_MAP_CLUSTER: &str = "liveMapCluster";
/// Map: the area that the stream covers.
pub const VIEW: &str = "view";

/// Waiting room: the position of a ticket that waits.
pub const QUEUE_UPDATE: &str = "queueUpdate";
/// Waiting room: the ticket was admitted; the event has the pass.
pub const QUEUE_ADMITTED: &str = "queueAdmitted";
/// Waiting room: the ticket lost its place or its session.
pub const QUEUE_LOST: &str = "queueLost";
/// Waiting room: the room was closed for good.
pub const QUEUE_CLOSED: &str = "queueClosed";

/// Inbox: the device is connected; the event has the number of unread notifications.
pub const CONNECTED: &str = "connected";
/// Inbox: a notification.
pub const NOTIFICATION: &str = "notification";
/// Inbox: notifications were marked as read.
pub const READ: &str = "read";
/// Inbox: notifications were deleted.
pub const DELETED: &str = "deleted";

/// Topic: the name of an event if neither the record nor the route names one.
pub const MESSAGE: &str = "message";
/// Topic: the suffix of the name if the value of the record is null.
pub const NULL_SUFFIX: &str = ".null";
/// Topic: the suffix of the name if the value of the record is empty.
pub const EMPTY_SUFFIX: &str = ".empty";
/// Topic: the suffix of the name if the value of the record is not text, and therefore sent as base64.
pub const BASE64_SUFFIX: &str = ".base64";

/// The maximum length of the name of a topic's event, in bytes.
const MAX_NAME_BYTES: usize = 128;
/// Names that a record of a topic must not have. `error` and `open` are events of `EventSource` itself.
const RESERVED: [&str; 5] = [RESET, STATUS, END, "error", "open"];

/// Returns whether a record of a topic, or a route, may give its events this name: one line of 1 to 128 bytes that
/// streams do not use themselves.
pub fn is_topic_event_name(text: &str) -> bool {
    let reserved = RESERVED.contains(&text)
        || [BASE64_SUFFIX, NULL_SUFFIX, EMPTY_SUFFIX].iter().any(|suffix| text.ends_with(suffix));
    (1..=MAX_NAME_BYTES).contains(&text.len()) && !text.contains(['\r', '\n', '\0']) && !reserved
}

/// Why a client has to drop what it was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetReason {
    /// The edge has just started to follow the feed.
    Start,
    /// The edge or Redis no longer keeps what came after the id of the client.
    TooOld,
    /// The id of the client is not an id, or the edge cannot continue from it.
    UnknownId,
    /// The stream was cut off before everything was shown that followed an earlier reset.
    Incomplete,
    /// Kafka lost records before they were read, or Redis lost records of a mailbox.
    Gap,
    /// Redis came back empty, or the feed was deleted.
    NewEpoch,
    /// Redis came back with an older state and continued from there.
    HistoryChanged,
    /// The log of the feed no longer reaches back to the last record that the edge has.
    Trimmed,
    /// The id of the client belongs to a stream that showed another part of the map.
    OtherView,
    /// The stream shows clusters, which cannot be continued from an id.
    Clusters,
    /// The task of the edge that follows the feed ended unexpectedly.
    FollowerEnded,
}

impl ResetReason {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::Start,
        Self::TooOld,
        Self::UnknownId,
        Self::Incomplete,
        Self::Gap,
        Self::NewEpoch,
        Self::HistoryChanged,
        Self::Trimmed,
        Self::OtherView,
        Self::Clusters,
        Self::FollowerEnded,
    ];

    /// Returns the reason that a word stands for, or `None` if the word is not a reason.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }

    /// Returns the word for the reason, as in the data of a `reset` event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::TooOld => "too_old",
            Self::UnknownId => "unknown_id",
            Self::Incomplete => "incomplete",
            Self::Gap => "gap",
            Self::NewEpoch => "new_epoch",
            Self::HistoryChanged => "history_changed",
            Self::Trimmed => "trimmed",
            Self::OtherView => "other_view",
            Self::Clusters => "clusters",
            Self::FollowerEnded => "follower_ended",
        }
    }
}

/// Returns the data of a `reset` event.
pub fn reset_data(reason: ResetReason) -> String {
    format!(r#"{{"reason":"{reason}"}}"#)
}

impl fmt::Display for ResetReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reasons_of_a_reset_are_the_words_that_earlier_versions_wrote() {
        let words = [
            "start",
            "too_old",
            "unknown_id",
            "incomplete",
            "gap",
            "new_epoch",
            "history_changed",
            "trimmed",
            "other_view",
            "clusters",
            "follower_ended",
        ];
        assert_eq!(ResetReason::ALL.map(ResetReason::as_str), words);
        for (word, reason) in words.into_iter().zip(ResetReason::ALL) {
            assert_eq!(ResetReason::parse(word), Some(reason));
        }
        assert_eq!(ResetReason::parse("TooOld"), None);
        assert_eq!(reset_data(ResetReason::Gap), r#"{"reason":"gap"}"#);
    }

    #[test]
    fn a_topic_event_has_no_name_that_streams_use_themselves() {
        for name in ["message", "order", "a b", "é", &"x".repeat(128)] {
            assert!(is_topic_event_name(name), "{name}");
        }
        for name in [
            "", "reset", "status", "end", "error", "open", "x.null", "x.empty", "x.base64", "a\nb", "a\rb",
            "a\0b",
        ] {
            assert!(!is_topic_event_name(name), "{name:?}");
        }
        assert!(!is_topic_event_name(&"x".repeat(129)));
    }
}
