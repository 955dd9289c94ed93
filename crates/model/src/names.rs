//! The names of feeds, which both the writers and the followers of a feed use.

/// The prefix of the names of the feeds of mailboxes, which are called `inbox.<bucket>`.
pub const INBOX: &str = "inbox";

/// Returns the name of the feed of one shard of the live map: `locations.<shard>`.
pub fn locations_feed(shard: u32) -> String {
    format!("locations.{shard}")
}

/// Returns the shard that receives the positions of a Kafka partition: the partition modulo the number of shards.
///
/// # Panics
/// Panics if `shards` is 0, which the configuration refuses.
pub fn shard_of(partition: i32, shards: u32) -> u32 {
    partition.unsigned_abs() % shards
}

/// Returns the name of the feed of one waiting room: `room.<room>`.
pub fn room_feed(room: &str) -> String {
    format!("room.{room}")
}

/// Returns the name of the feed of one Kafka topic of a route of kind `events`: `topic.<name>`.
pub fn topic_feed(name: &str) -> String {
    format!("topic.{name}")
}
