//! The live map.

pub(crate) mod area;
pub(crate) mod catch_up;
pub(crate) mod copies;
pub(crate) mod entry;
pub(crate) mod follower;
pub(crate) mod replay;
pub(crate) mod routes;
pub(crate) mod settings;
pub(crate) mod shown;
pub(crate) mod snapshot;
pub(crate) mod state;
pub(crate) mod tick;
pub(crate) mod tile_index;
pub(crate) mod tile_updates;
pub(crate) mod view;
pub(crate) mod viewers;
