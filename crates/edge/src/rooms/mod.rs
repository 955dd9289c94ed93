//! Waiting rooms: joins, tickets and their streams, and the administration of rooms.
//!
//! The rooms themselves live in Redis, and only the waiting room's service (`crates/queue`) changes them. This folder
//! asks that service over gRPC, follows the feeds of the rooms that have streams here, and writes to the streams.
//!
//! The path of a visitor:
//!
//! 1. [`routes`]: the handler `join` reads the `Idempotency-Key`, and the user if there is a token. It asks one replica
//!    of the service after the other ([`client`]), because every call may be made twice. The answer is a ticket with a
//!    signed token.
//! 2. [`tickets`]: verifies that token whenever the visitor reads, claims, renews or releases the ticket, or opens its
//!    stream. The service supplies the public keys. They are fetched again when a request needs them and those kept are
//!    older than 60 s. [`routes`] also publishes them, at `/.well-known/jwks.json`, for the shops that verify passes.
//! 3. [`follower`]: `Rooms::follow` starts one task for each room with streams here. The `RoomFollower` asks the
//!    service for a snapshot, follows the room's feed from the snapshot's version, and publishes a `RoomStep` to all
//!    workers at most every 50 ms. The task ends once the room has had no stream here for 30 s and the service knows.
//! 4. [`state`]: a `RoomView` applies each record of the feed to the snapshot. It holds two bitmaps: one of the waiting
//!    visitors by place, one of the admitted visitors by ticket number. The position of a visitor in line is the rank of
//!    the visitor's place in the first (`RoomView::rank`). The service computes the same for JSON answers, in
//!    `ticket_reply` of `queue/src/lua/tickets.lua`.
//! 5. [`settle`]: a visitor that is new, or no longer where it was, becomes a task. The task asks the service for the
//!    ticket (`ask_service`), sends the answer, waits until this edge has reached the answer's version (`caught_up`), and
//!    puts the visitor among those that wait, in the order of the line, or those inside (`place`).
//! 6. [`visitors`]: each worker has one `RoomStreams`. At each step it writes to the first 20 visitors of a line, and
//!    once a second to all (`walk`). [`visitor`] decides which events one visitor receives.
//! 7. [`presence`]: each stream holds a `Present`. Once a second the edge reports to the service for which tickets
//!    streams opened and closed, so that a visitor without a stream leaves the line after the grace period. That costs
//!    one call a second for each room, however many visitors it has.
//!
//! A `RoomStep` with another generation, another status or a new mode makes `RoomStreams` place all visitors of the
//! room again (`resettle`). So does the opening of a room: before it a visitor's index in the bitmap is the ticket
//! number, afterwards it is the visitor's place in the line.
//!
//! *Architecture Invariant:* [`state`] depends on nothing but a snapshot and the records after its version, in order.
//!
//! *Architecture Invariant:* a visitor receives its ticket's state and its pass only from an answer of the service, and
//! its position only from the view, once the view has reached that answer.

pub(crate) mod client;
pub(crate) mod follower;
pub(crate) mod presence;
mod proto;
pub(crate) mod routes;
pub(crate) mod settings;
pub(crate) mod settle;
pub(crate) mod state;
pub(crate) mod tickets;
pub(crate) mod visitor;
pub(crate) mod visitors;
