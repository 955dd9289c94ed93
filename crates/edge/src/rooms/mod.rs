//! Waiting rooms.

pub(crate) mod client;
pub(crate) mod follower;
pub(crate) mod presence;
mod proto;
pub(crate) mod routes;
pub(crate) mod settings;
pub(crate) mod settle;
pub(crate) mod state;
pub(crate) mod tickets;
pub(crate) mod visitor;
pub(crate) mod visitors;
