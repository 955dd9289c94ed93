//! The rooms in Redis. Each method of [`Rooms`] runs one script of `src/lua`, which makes a change in one atomic step:
//!
//! - [`Rooms::put`], [`Rooms::patch`] and [`Rooms::set_mode`] make and change a room (`settings.rs`; `put.lua`, `mode.lua`);
//! - [`Rooms::join`], [`Rooms::act`] and [`Rooms::remove`] change one ticket (`ticket.rs`; `join.lua`, `ticket.lua`);
//! - [`Rooms::presence`] notes which tickets have a stream at an edge (`presence.rs`; `presence.lua`);
//! - [`Rooms::tick`] moves the time of a room forward (`tick.rs`; `tick.lua`);
//! - [`Rooms::relay`] keeps the lease of the relay to Kafka (`relay.rs`; `relay.lua`);
//! - [`Rooms::read`] reads a room (`state.rs`; `read.lua`).
//!
//! The path of a join: `Rooms::join` passes the idempotency key to `join.lua`, which follows the shared scripts (`tags.lua`,
//! `room.lua`, `lottery.lua`, `tickets.lua`, `absence.lua`; `scripts.rs` puts them together). `room.lua` reads the room from
//! the head of its feed. If the key is known, the script answers with its ticket. Otherwise it takes the next number, sets
//! the bit of the place in the bitmap of the line, writes the ticket, lists it for the check of its grace period, and appends
//! the event. If there is room it admits at once, so that the answer to a join may already have a pass. Then `finish` writes the
//! records to the log, the room to the head, and publishes the records. The reply becomes a [`TicketReply`].
//!
//! A script that refuses answers with a word, which becomes a [`Refusal`]. Numbers that stand for states on Redis have names
//! in `tags.lua` and enums in `tags.rs`.
//!
//! *Invariants:* the scripts are the only writers of a room; every change has its record; all times are the clock of Redis.

mod client;
mod error;
mod list;
mod presence;
mod relay;
mod reply;
mod scripts;
mod settings;
mod state;
mod tags;
mod tick;
mod ticket;

pub use client::Rooms;
pub use error::{Error, Refusal};
pub use relay::RelayLease;
pub(crate) use reply::MAX_NUMBER;
pub use scripts::join_script;
pub use state::{RoomState, Seed, StoredRoom};
pub use tags::{Phase, TicketStatus};
pub use tick::TickReply;
pub use ticket::{TicketAction, TicketReply};
