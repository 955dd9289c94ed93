//! A *feed*: an ordered, numbered, resumable channel over Redis.
//!
//! Redis Pub/Sub alone loses what is published while a subscriber is away; a log alone is not
//! instant. A feed is both. The path of a record:
//!
//! 1. [`Feed::append`] runs `append.lua`: a compare-and-set on the source's position that numbers
//!    the record, writes it to the log and publishes it, in one atomic step.
//! 2. [`follow`] subscribes first, then reads head and log, then goes live. A [`chain::Chain`]
//!    decides which record comes next; every hole is refilled from the log.
//! 3. What cannot be refilled becomes [`Event::Reset`]: it is never passed over in silence.
//!
//! [`Mailboxes`] are feeds whose records are addressed, with a short list for each address.
//!
//! A [`Cursor`] is a place in several feeds, as the short text that browsers send back.
//!
//! *Invariant:* only `redis.rs` configures the driver, and only scripts write a feed; `held_back.rs` writes a note beside
//! it.

mod agreement;
mod append;
mod chain;
mod connection_registry;
mod cursor;
mod error;
mod eviction;
mod held_back;
mod keys;
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
pub use mailbox::{
    FileOutcome, Filing, Item, Letter, Mailbox, MailboxChange, MailboxLimits, Mailboxes, Mark, Page, Since,
    StoredMark,
};
pub use metrics::{AppendMetrics, FollowMetrics, MailboxMetrics, RedisMetrics};
pub use offset_history::{OffsetHistory, Offsets};
pub use record::{HEADER_BYTES, Position, Record};
pub use redis::{Connection, connect, connection_epoch, time_us};
pub use replicas::Replicas;
pub use script::{is_script_failure, run_script};
pub use subscriber::{Event, Following, Head, ResetReason, follow, follow_from, follow_newest, read_log};
