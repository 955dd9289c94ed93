//! Topics.

pub(crate) mod follower;
pub(crate) mod listeners;
pub(crate) mod routes;
pub(crate) mod settings;
pub(crate) mod state;
