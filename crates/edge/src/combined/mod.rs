//! Combined streams: an inbox, a waiting room and the map in one connection, because browsers open at most six
//! connections to an origin.
//!
//! 1. [`routes`] asks each job for its `part`: what the client may see of it, with the last id of that part. The last
//!    id of a combined stream is [`rewrite::Ids`], one id of all parts.
//! 2. [`join`] takes the client's stream over. Each part is a stream like any other, which has one end of a pipe in
//!    memory in place of a socket; its job cannot tell. A task reads the other ends and writes to the client, event by
//!    event.
//! 3. [`rewrite::Rewriter`] stands between the two, without IO. It replaces each `id:` by the id of all parts, writes
//!    into control events (`status`, `reset`, `end`) which stream they are of, and leaves out heartbeats and
//!    `reconnect`, which the whole stream has of its own.
//!
//! While the client is slow the task reads nothing, so the parts fall behind and catch up as they would with a client
//! of their own. A part that sends `end` is dropped. If a part ends in any other way the whole stream does, and the
//! client comes back. Every byte is written twice: into
//! the pipe and to the client.
//!
//! *Architecture Invariant:* this folder uses the function `part` of each job, and none of its insides.
//!
//! *Architecture Invariant:* if a part ends without the event `end`, the whole stream ends. Otherwise the client would
//! miss something without knowing. A part that
//! breaks off within an event ends the stream without a last word, so that the event does not look whole.

pub(crate) mod join;
pub(crate) mod rewrite;
pub(crate) mod routes;
