//! A *feed*: an ordered, numbered, resumable channel over Redis.
//!
//! Redis Pub/Sub alone loses what is published while a subscriber is away, and a log alone is not instant. A feed is
//! both: a *log* (a Redis stream), a *head* (a hash: epoch, number and time of the newest record, and the position of
//! each source) and a *channel* (sharded Pub/Sub). Their names are in `keys.rs`.
//!
//! # The path of a record
//!
//! 1. [`Feed::append`] runs `append.lua`, one atomic step. If the head holds the source position that the caller
//!    expects (compare-and-set), the script numbers the record, adds it to the log, moves the head, trims the log by age
//!    and bytes, and publishes the record. If the source is past that position, the record is a duplicate and nothing is
//!    done. If it is before that position, or unknown, Redis has lost something and the append is refused.
//! 2. A record is epoch, number, time, time of the record before it, and payload ([`Record`]). These bytes are the
//!    same in the log and on the channel; `record.lua` writes them and `record.rs` reads them.
//! 3. [`follow`] starts a task that subscribes to the channel, then reads the log, then takes what the channel brings
//!    (`subscriber`).
//! 4. A chain (`chain.rs`) checks each record: it is the next one, or an old one, or there is a gap before it. It is
//!    the next one only if its number *and* the time of the record before it fit.
//! 5. A gap, a reconnect and an overflow of the receive buffer are refilled from the log. The heads, which are read
//!    every second, show records that were never heard of: a head that is ahead at two reads in a row.
//! 6. Where the log does not go on from the record that the chain holds, the follower receives a reset with its
//!    reason ([`Event::Reset`]), and the log from its oldest record on. Nothing is passed over in silence.
//!
//! A [`Cursor`] is a position in several feeds, as the short text that browsers send back.
//!
//! # What is built on feeds
//!
//! - [`Mailboxes`]: feeds whose records are addressed, with a short list of items for each address.
//! - [`OffsetHistory`]: the offsets of a source (a Kafka partition) whose records go to many feeds.
//! - [`ConnectionRegistry`]: which devices of a user are connected, and where. It uses no feed.
//!
//! *Invariants:* only scripts write a feed, so number, log, position and publication cannot disagree (`held_back.rs`
//! writes a note beside it). A record is delivered only if it follows the one that the chain holds. Only `redis.rs`
//! configures the driver.

mod agreement;
mod append;
mod chain;
mod connection_registry;
mod cursor;
mod error;
mod eviction;
mod head;
mod held_back;
mod keys;
mod log;
#[cfg(test)]
mod lua_constants;
mod mailbox;
mod metrics;
mod offset_history;
mod record;
mod redis;
mod replicas;
mod script;
mod subscriber;

pub use agreement::wait_for_agreement;
pub use append::{Append, AppendOutcome, Feed, LogLimits, RECORD_LUA};
pub use connection_registry::{ConnectionRegistry, DeviceConnection};
pub use cursor::Cursor;
pub use error::Error;
pub use eviction::{announce_evictions, announce_new_evictions, watch_eviction_policy};
pub use fred::clients::Client;
pub use keys::{channel, feed_keys, head_key, log_key};
pub use log::read_log;
pub use mailbox::{
    FileOutcome, Filing, Item, Letter, Mailbox, MailboxChange, MailboxLimits, Mailboxes, Mark, Page, Since,
    StoredMark,
};
pub use metrics::{AppendMetrics, FollowMetrics, MailboxMetrics, RedisMetrics};
pub use offset_history::{OffsetHistory, Offsets};
pub use record::{Position, Record};
pub use redis::{Connection, connect, connection_epoch, time_us};
pub use replicas::Replicas;
pub use script::{is_script_failure, run_script};
pub use subscriber::{Event, Following, Head, follow, follow_from, follow_newest};
