//! Following feeds.
//!
//! One task on one connection follows any number of feeds. For each of them it subscribes to the channel, then reads
//! the log, then takes what the channel brings, so there is no moment at which a record could be missed. The
//! [`Chain`] of a feed decides what is done with a record. A feed is *refilled* from its log where the chain has a
//! gap, after a reconnect, and where the receive buffer overflowed.
//!
//! The heads of all feeds are read every second. If two reads in a row show a head whose record was not received, the
//! subscription is broken (*deaf*), and it is made again. That happens, for example, when a slot of a Redis Cluster moves:
//! the new owner of the slot does not know the subscribers.
//!
//! If the log does not go on from the record that the chain holds, records are missing for good, and the caller
//! receives a reset with its reason ([`tutti_model::ResetReason`]); the log follows from its oldest record on.
//!
//! [`Chain`]: crate::chain::Chain

mod event;
mod follower;
mod following;
mod poll;
mod refill;

pub use self::event::{Event, Head};
pub use self::following::{Following, follow, follow_from, follow_newest};
