//! A simulation of users with their devices, and of a sender that notifies them.
//!
//! [`Inboxes`] says what to simulate, and runs it. It opens one stream for each device. A device whose stream breaks off
//! comes back at the next edge, with the last event id, so the simulation also runs while edges are restarted. What a
//! device hears goes into its [`Device`]. At the end all devices are compared with what was [`Sent`], and the [`Verdict`]
//! counts what is missing, out of order, or counted differently. [`Figures`] show all of that while it happens.

mod device;
mod figures;
mod run;
mod sender;
mod sent;
mod stream;
mod verdict;

pub use device::{Device, Heard, Times};
pub use figures::Figures;
pub use run::{Inboxes, Outcome, TOPIC, Tokens};
pub use sent::Sent;
pub use verdict::Verdict;
