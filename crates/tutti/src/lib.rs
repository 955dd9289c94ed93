//! `tutti`, the one tool for developers.
//!
//! `tutti up` ([`up`]) runs all of Tutti in one process, with an embedded Kafka broker ([`broker`]) and a private
//! Redis ([`local`]), and plays recorded taxis. `tutti sim` ([`sim`]) simulates load, `tutti watch` ([`watch`])
//! follows a map, and `tutti bench` ([`bench`]) measures what everything costs. [`passes`] and [`token`] make keys
//! and tokens. The end-to-end tests use [`local`], [`passes`], [`token`] and [`metrics`], too.

pub mod bench;
pub mod broker;
pub mod local;
pub mod metrics;
pub mod passes;
pub mod sim;
pub mod token;
pub mod up;
pub mod watch;
