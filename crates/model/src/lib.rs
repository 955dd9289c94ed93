//! What Tutti's services say to each other, and to Kafka and browsers: the types, their
//! protobuf and JSON forms, and the names of feeds.
//!
//! A fix arrives on Kafka as JSON or protobuf ([`location::decode`] checks it), travels through
//! Redis in a [`Locations`] message, and leaves as the JSON that [`location::to_json`] writes.
//!
//! *Invariant:* this crate does no IO and knows no clock. Where time matters it is an argument.

pub mod location;
pub mod names;

/// The generated protobuf messages of `proto/tutti/v1`.
mod proto {
    #![allow(missing_docs, reason = "generated; documented in proto/tutti/v1/*.proto")]
    #![allow(clippy::all, clippy::pedantic, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/tutti.v1.rs"));
}

pub use proto::{Change, Fix, Gap, Locations, Removal, change};
