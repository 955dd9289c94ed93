//! Kafka, as Tutti's services use it. No other crate names the Kafka client library, librdkafka behind `rdkafka`.
//!
//! # Reading: [`Consumer`]
//!
//! 1. [`Consumer::join`] subscribes a member of a consumer group to one topic. The group assigns partitions; each
//!    arrives as an [`AssignedPartition`], which carries a token that is cancelled when the group revokes it.
//! 2. A partition is not fetched from the offset that the group committed. The rebalance is answered with an empty
//!    assignment. The task that owns the partition looks up in Redis which offset comes next, compares that with
//!    [`Consumer::watermarks`], and calls [`Consumer::start_fetching`] at exactly that offset.
//! 3. Records come from the queue of their partition, [`Consumer::queue`]. A task that does not read its queue stops
//!    the fetching of that partition: this is the backpressure.
//! 4. [`Consumer::store_offset`] notes progress. librdkafka commits it every few seconds, for monitoring only.
//! 5. Every 5 seconds librdkafka reports statistics. They set the gauges in [`PartitionMetrics`] and show which
//!    records an open transaction holds back ([`Consumer::held_back`]).
//!
//! # Writing: [`Producer`]
//!
//! 1. [`Producer::session`] returns the client that is in use, or a new one if that has failed for good.
//! 2. [`Session::send`] queues a record and returns a [`Delivery`], which resolves once Kafka has acknowledged the
//!    record or the delivery timeout has passed. Records of one session reach a partition once each and in order.
//!
//! *Invariants:* an offset out of range is an error, never a silent jump. The properties on which these promises rest
//! ([`ClientSettings`]) cannot be overridden by an operator. A [`ConfigError`] never quotes the value of a property,
//! which may be a secret.

mod consumer;
mod error;
mod group;
mod held_back;
mod metrics;
mod producer;
mod records;
mod settings;
#[cfg(feature = "tools")]
pub mod tools;

pub use consumer::{Consumer, ConsumerOptions};
pub use error::{ConfigError, Error};
pub use group::AssignedPartition;
pub use metrics::{PartitionLabel, PartitionMetrics};
pub use producer::{Delivery, Producer, ProducerOptions, ProducerRecord, Session};
pub use records::{ConsumerRecord, PartitionQueue, Records};
pub use settings::ClientSettings;
