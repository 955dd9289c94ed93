//! The developer's one tool. `tutti up` ([`up`]) runs all of Tutti in one process, with an embedded
//! Kafka-protocol broker ([`broker`]) and a private Redis ([`local`]), and plays recorded taxis.

pub mod bench;
pub mod broker;
pub mod local;
pub mod metrics;
pub mod passes;
pub mod sim;
pub mod token;
pub mod up;
pub mod watch;
