//! What all that follows a feed has in common, whatever the feed brings. This folder knows no job.
//!
//! A follower notes in [`status::Liveness`] when something arrived last from each of its feeds, and how many records
//! Kafka holds back. Liveness makes a [`status::Status`] of that, which travels with each step to the streams, and a
//! stream that shows another status writes the event `status`.
//!
//! If the history of a feed changes, the follower begins a new generation, and each stream of the old one writes the
//! event `reset` ([`reset`]) before it shows the new one from its start. The id of that event is [`reset::INCOMPLETE`]
//! until the client has received everything that follows, so a client that comes back in between receives it from its
//! start again.
//!
//! A client may come back with a cursor that its last edge had reached and this one has not.
//! [`cursor_wait::CursorWait`] holds such a stream until the heads in Redis were polled twice more and this edge has
//! reached them. Only then is it known that no history has the cursor, and the client receives a reset.
//!
//! A registry outside the edge knows who has streams where. [`membership::Membership`] counts the streams of each member
//! at this edge and repeats a report until the registry has confirmed it.
//!
//! *Architecture Invariant:* an unknown cursor is a reason for a reset only after this edge has reached a head that was
//! polled after the client came.
//!
//! *Architecture Invariant:* a client that was shown a part of what follows a reset is shown all of it again.

pub(crate) mod cursor_wait;
pub(crate) mod membership;
pub(crate) mod next_write;
pub(crate) mod reset;
pub(crate) mod status;
