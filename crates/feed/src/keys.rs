//! The keys and the channel of a feed. All of them hold the name of the feed in braces, as a hash tag: in a Redis
//! Cluster they lie in one slot, so that one script may use them all.

use fred::types::MultipleKeys;

/// Returns the key of the log of a feed, a Redis stream.
pub fn log_key(feed: &str) -> String {
    format!("tutti:{{{feed}}}:log")
}

/// Returns the key of the head of a feed, a hash.
pub fn head_key(feed: &str) -> String {
    format!("tutti:{{{feed}}}:head")
}

/// Returns the channel that the records of a feed are published on.
pub fn channel(feed: &str) -> String {
    format!("tutti:{{{feed}}}")
}

/// Returns the keys that each script of a feed declares: the log, the head, and one that never exists.
///
/// Scripts also use other keys of the feed's hash tag. While a Redis Cluster moves a slot from one node to another,
/// key by key, a script would read those that are on the other node as never written. Redis refuses a script as a
/// whole (`TRYAGAIN`) while one of the keys that it declares is missing, so the key that never exists has Redis
/// refuse all scripts of a slot that is moving.
pub fn feed_keys(feed: &str) -> MultipleKeys {
    vec![log_key(feed), head_key(feed), format!("tutti:{{{feed}}}:never")].into()
}
