//! Names of the feeds, shared by who writes and who follows them.

/// The feed of one shard of the live map: `locations.<shard>`.
pub fn locations_feed(shard: u32) -> String {
    format!("locations.{shard}")
}

/// The shard that a Kafka partition's positions go to: partition modulo shards.
///
/// # Panics
/// If `shards` is 0, which no configuration passes.
pub fn shard_of(partition: i32, shards: u32) -> u32 {
    partition.unsigned_abs() % shards
}

/// The feed of one waiting room: `room.<room>`.
pub fn room_feed(room: &str) -> String {
    format!("room.{room}")
}

/// The feed of one `events` topic of Kafka: `topic.<name>`.
pub fn topic_feed(name: &str) -> String {
    format!("topic.{name}")
}

/// The feeds of users' and topics' mailboxes: `inbox.<bucket>`.
pub const INBOX: &str = "inbox";
