//! The limits of the fields of a notification.

/// The maximum number of users that one notification goes to.
pub const MAX_USERS: usize = 1000;
/// The maximum length of the name of a user, in bytes of UTF-8.
pub const MAX_USER_BYTES: usize = 256;
/// The maximum length of the name of a topic, in bytes.
pub const MAX_TOPIC_BYTES: usize = 64;
/// The maximum length of title and body together, in bytes of UTF-8.
pub const MAX_TEXT_BYTES: usize = 4096;
/// The maximum length of `data`, in bytes of JSON without white space between its parts.
pub const MAX_DATA_BYTES: usize = 16 * 1024;
/// The maximum depth of the nesting of `data`. Receivers have limits from 64 up.
pub const MAX_DATA_DEPTH: usize = 32;
/// The maximum length of the category, in bytes of UTF-8.
pub const MAX_CATEGORY_BYTES: usize = 64;
/// The maximum length of an id, in bytes.
pub const MAX_ID_BYTES: usize = 128;
/// The longest time to live: ten years, in seconds.
pub const MAX_TTL_SECONDS: u64 = 315_360_000;
