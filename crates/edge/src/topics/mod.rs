//! Topics: events of any kind, sent to clients in the order in which they lie in the feed.
//!
//! The path of an event:
//!
//! 1. Ingest appends the records of all partitions of a topic to one feed, `topic.<name>`, so Redis puts them into one
//!    order. A gap in Kafka lies in that order too.
//! 2. [`follower`] is one task for all topics of an edge. It follows their feeds over one connection and publishes a
//!    [`follower::TopicStep`] over a watch channel per topic: after at most 256 records, and once a second. It
//!    publishes nothing before it has reached the head of the first poll.
//! 3. [`state::TopicView`] keeps the newest records of a topic, each event as text that is ready to be written, with
//!    its `id:`. Above `topics.memory_bytes` the oldest go. Empty records move the position and are not kept.
//! 4. [`listeners`] holds the streams of a worker, in one list per topic. At each step it writes the new entries to
//!    every stream in the list: the frame that was encoded once, or to a stream with a key the text of that key.
//!
//! The path of a client: [`routes`] checks the token and reads the last id, which is a [`state::EventPosition`]: a
//! cursor, plus the number of the event within the record if it is not the last event of it.
//! [`state::TopicView::resume`] says whether this edge has that position, and [`catch_up::TopicCatchUp::next`] decides:
//! go on, wait, or reset. The stream starts as a task of its own, which writes about 16 KB at a time out of the newest view until nothing is left;
//! then it joins the list. A stream whose socket is full, a new generation and a change of the status take the same
//! way.
//!
//! *Architecture Invariant:* all clients receive an event at the place that it has in the feed. A filter by key leaves
//! events out and moves no place.
//!
//! *Architecture Invariant:* between reading the step of a topic and joining the list there is no await, so no step can
//! come between.

pub(crate) mod catch_up;
pub(crate) mod follower;
pub(crate) mod listeners;
pub(crate) mod routes;
pub(crate) mod settings;
pub(crate) mod state;
