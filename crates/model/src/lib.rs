//! The types that the services of Tutti exchange with each other, with Kafka and with browsers: their protobuf and JSON
//! forms, their checks and defaults, and the names of feeds, events and reset reasons.
//!
//! - A position arrives on Kafka as JSON or protobuf and is checked by [`location::decode`]. It crosses Redis in a
//!   [`Locations`] message and leaves as the JSON of [`location::to_json`].
//! - A change of a waiting room is a [`RoomEvent`]. The script that makes the change writes the event, which goes to Kafka
//!   and to the edges unchanged ([`room`]). [`queue`] has the messages that edges and back ends exchange with the service
//!   of the waiting room.
//! - A notification arrives on Kafka or by HTTP and is checked by [`notification::decode`]. It lies in a mailbox as a
//!   [`Notification`] and leaves as the JSON of [`notification::to_json`]. [`notify`] has the messages of its service.
//! - A record of a topic crosses Redis in a [`TopicRecords`] message and leaves as it arrived.
//!
//! [`json`] reads all JSON from outside and [`time`] checks all times from outside. [`events`] has the names of SSE events
//! and the reasons of resets, [`names`] the names of feeds.
//!
//! *Invariant:* this crate does no IO and has no clock. Where time matters it is an argument.

pub mod events;
mod format;
pub mod json;
pub mod location;
pub mod lottery;
pub mod names;
pub mod notification;
pub mod room;
pub mod time;

/// The generated protobuf messages of `proto/tutti`, in modules like their packages.
mod proto {
    pub(crate) mod v1;
    pub(crate) mod queue {
        pub(crate) mod v1;
    }
    pub(crate) mod notify {
        pub(crate) mod v1;
    }
}

/// The messages of the service of the waiting room, `proto/tutti/queue/v1`.
pub mod queue {
    pub use crate::proto::queue::v1::*;
}

/// The messages of the service of the notifications, `proto/tutti/notify/v1`.
pub mod notify {
    pub use crate::proto::notify::v1::*;
}

pub use events::ResetReason;
pub use format::Format;
pub use proto::v1::{
    Admitted, Change, Claimed, Fix, Gap, Gone, GoneReason, Joined, Locations, Mode, Notification, Opened,
    Pulse, Recipients, Removal, RoomEvent, RoomMode, RoomSettings, TicketState, TopicEvent, TopicRecords,
    change, room_event,
};
