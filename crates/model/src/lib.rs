//! What Tutti's services say to each other, and to Kafka and browsers: the types, their
//! protobuf and JSON forms, and the names of feeds.
//!
//! All JSON that comes from outside is read by [`json`], and all times from outside are checked by [`time`].
//! A fix arrives on Kafka as JSON or protobuf ([`location::decode`] checks it), travels through
//! Redis in a [`Locations`] message, and leaves as the JSON that [`location::to_json`] writes. A
//! change of a waiting room is a [`RoomEvent`] from the script that makes it to Kafka and to the edges
//! ([`room`]); [`queue`] is what edges ask of the waiting room's service. A [`notification`] arrives on
//! Kafka, lies in a mailbox, and leaves as JSON; [`notify`] is what edges ask of its service.
//!
//! *Invariant:* this crate does no IO and knows no clock. Where time matters it is an argument.

pub mod json;
pub mod location;
pub mod lottery;
pub mod names;
pub mod notification;
pub mod room;
pub mod time;

/// The generated protobuf messages of `proto/tutti`, laid out as their packages are.
mod proto {
    #![allow(missing_docs, reason = "generated; documented in proto/tutti")]
    #![allow(unreachable_pub, reason = "generated")]
    #![allow(clippy::all, clippy::pedantic, reason = "generated")]
    pub(crate) mod v1 {
        include!(concat!(env!("OUT_DIR"), "/tutti.v1.rs"));
    }
    pub(crate) mod queue {
        pub(crate) mod v1 {
            include!(concat!(env!("OUT_DIR"), "/tutti.queue.v1.rs"));
        }
    }
    pub(crate) mod notify {
        pub(crate) mod v1 {
            include!(concat!(env!("OUT_DIR"), "/tutti.notify.v1.rs"));
        }
    }
}

/// What is said to the waiting room's service: `proto/tutti/queue/v1`.
pub mod queue {
    pub use crate::proto::queue::v1::*;
}

/// What is said to the notifications' service: `proto/tutti/notify/v1`.
pub mod notify {
    pub use crate::proto::notify::v1::*;
}

pub use proto::v1::{
    Admitted, Change, Claimed, Fix, Gap, Gone, GoneReason, Joined, Locations, Mode, Notification, Opened,
    Pulse, Recipients, Removal, RoomEvent, RoomMode, RoomSettings, TicketState, TopicEvent, TopicRecords,
    change, room_event,
};
