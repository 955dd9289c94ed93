//! One device's stream of inboxes: what was asked for, and what the device has been shown.

use std::rc::Rc;

use tutti_feed::{Mailboxes, Position};
use tutti_model::events::ResetReason;
use tutti_sse::stream::Stream;

use crate::following::cursor_wait::CursorWait;
use crate::following::status::Status;
use crate::inbox::connections::Connection;
use crate::inbox::events::{Address, Shown};

/// What is needed to open a device's stream.
pub(crate) struct Device {
    pub(crate) mailboxes: Mailboxes,
    /// The mailboxes that the device follows. The user's own mailbox comes first.
    pub(crate) addresses: Rc<[Address]>,
    /// What the device has been shown of each mailbox.
    pub(crate) shown: Vec<Shown>,
    /// Why what the device was shown is void, if it came with an id from which its stream cannot go on.
    pub(crate) lost: Option<ResetReason>,
    /// The name of the device.
    pub(crate) name: String,
    /// Keeps the device in the registry.
    #[expect(dead_code, reason = "it ends with the stream")]
    pub(crate) connection: Connection,
}

/// One device's stream.
pub(crate) struct DeviceStream {
    pub(crate) stream: Stream,
    pub(crate) device: Device,
    /// The device's number in the [`Roster`](crate::inbox::roster::Roster).
    pub(crate) number: usize,
    /// The device has received `connected`.
    pub(crate) greeted: bool,
    /// The value of `interruptions` of the worker before the device's mailboxes were read.
    pub(crate) interruptions: u64,
    /// The device has been shown only a part of what follows a reset. Until it has been shown all, its id stays the one
    /// that says so.
    pub(crate) incomplete: bool,
    /// The status that the device received last.
    pub(crate) status: Option<Status>,
    pub(crate) cursor_wait: CursorWait,
}

impl DeviceStream {
    /// Notes that the device has been shown everything up to these places.
    pub(crate) fn place(&mut self, place: impl Fn(&Address) -> Option<Position>) {
        self.device.shown = self.device.addresses.iter().map(|address| Shown::UpTo(place(address))).collect();
    }
}
