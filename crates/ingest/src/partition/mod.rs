//! One assigned partition, from the offset where Redis stands: *poll, decode, append, store the offset*.
//!
//! 1. [`task`] runs until the group revokes the partition. It starts the partition again after every error and every
//!    loss of records in Redis.
//! 2. [`start`] asks Redis for the position and Kafka for the watermarks. Records that Kafka no longer has are announced
//!    as a gap in the feed itself.
//! 3. [`gather`] collects records into a batch until it is full or its linger time ends. The linger times of all
//!    partitions of a route end at the same moments, so that their calls reach Redis together. The first record after a
//!    quiet time goes out at once. Until the linger time ends the task sleeps, because waking for each record would cost
//!    more than the record does. While Redis stores one batch, the next is gathered.
//! 4. [`carry`] stores batches. An empty one goes out after a second without records, so that followers can tell a quiet
//!    partition from a dead one. While an open transaction holds records back, the number of these is noted instead.
//!
//! *Invariants:* an offset is stored in the group only after Redis answered. A batch is stored again until Redis has it;
//! meanwhile Kafka is the buffer, since nobody reads the partition's queue.

mod carry;
mod clock;
mod gather;
mod lane;
mod start;
mod task;

pub(crate) use lane::{Partition, RouteContext};
