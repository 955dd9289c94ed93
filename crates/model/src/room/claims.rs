//! The claims of tokens and passes.

use serde::{Deserialize, Serialize};

/// The audience of the token of a ticket, which is valid for the routes of that ticket.
pub const TICKET_AUDIENCE: &str = "tutti-ticket";
/// The audience of a pass, which is valid for the application that the waiting room protects.
pub const PASS_AUDIENCE: &str = "tutti-pass";

/// The claims of the token of a ticket and of a pass, both signed with Ed25519 by the service of the waiting room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// [`TICKET_AUDIENCE`] or [`PASS_AUDIENCE`].
    pub aud: String,
    /// The name of the room.
    pub room: String,
    /// The number of the ticket.
    pub ticket: u64,
    /// The epoch of the feed of the room.
    pub epoch: u32,
    /// The time at which the ticket joined, in microseconds since 1970, by the clock of the feed.
    pub joined: u64,
    /// The time of issue, in seconds since 1970.
    pub iat: u64,
    /// The time of expiry, in seconds since 1970.
    pub exp: u64,
}
