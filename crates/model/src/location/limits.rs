//! The limits of the fields of a position.

/// The maximum length of a mediaId, in bytes of UTF-8.
pub const MAX_MEDIA_ID_BYTES: usize = 128;
/// The maximum length of the `properties` of a fix, in bytes of compact JSON.
pub const MAX_PROPERTIES_BYTES: usize = 1024;
/// The maximum time that a timestamp may be ahead of the time of the feed, in milliseconds.
pub const MAX_AHEAD_MS: i64 = 10_000;
