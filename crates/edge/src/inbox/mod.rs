//! Notifications.

pub(crate) mod catch_up;
pub(crate) mod client;
pub(crate) mod connections;
pub(crate) mod devices;
pub(crate) mod events;
pub(crate) mod follower;
mod proto;
pub(crate) mod roster;
pub(crate) mod routes;
pub(crate) mod settings;
