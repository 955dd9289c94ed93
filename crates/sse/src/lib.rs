//! Server-Sent Events to many clients, whatever the events show. This crate knows bytes, sockets and time; it knows
//! no job of Tutti, no feed and no route.
//!
//! The path of a stream:
//!
//! 1. [`takeover`]: actix-web parses a request and writes the response head. The handler has left an
//!    [`Admission`](hub::Admission) in the connection's slot, so the socket leaves actix-web and goes to the hub.
//! 2. [`hub`]: each worker thread has one hub. It opens the stream, writes the first event, and calls the function in
//!    the admission, by which a job takes the stream over.
//! 3. A [`Job`](hub::Job) keeps the streams that are up to date in a list of its own and writes to them what is new: a
//!    [`frame`] that was encoded once for all of them. A stream whose socket takes only a part of it leaves the list and
//!    becomes a task. The task writes only through the hub, which sends heartbeats, detects clients that left or
//!    stalled, and ends the stream when its time is over.
//! 4. Once a second the hub has each job sweep its list. When the server drains, each job sets a random end
//!    within the drain window for each of its streams ([`Hub::drain_end`](hub::Hub)). The last event of a stream
//!    says why it ends (`Stream::close` in [`stream`]).
//!
//! What the events of a stream look like is in [`events`], how they are compressed in [`coding`]. [`limits`] bounds how
//! much one client may have, and [`turns`] shares costly work among clients fairly. [`pipe`] joins streams in memory.
//!
//! *Invariants:* a frame is encoded once for all clients that get it. A stream holds the rest of one frame at most,
//! however slow its client is. All reads and writes of a client go through [`socket`], so how a worker learns
//! that a socket is ready is decided there alone.

pub mod coding;
pub mod events;
pub mod frame;
pub mod hub;
pub mod limits;
pub mod live;
pub mod metrics;
pub mod pipe;
pub mod socket;
pub mod stream;
pub mod takeover;
pub mod turns;

#[cfg(test)]
mod tests;
