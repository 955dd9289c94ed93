//! What all routes have in common.

pub(crate) mod auth;
pub(crate) mod client_address;
pub(crate) mod compress;
pub(crate) mod files;
pub(crate) mod jwks;
pub(crate) mod open;
pub(crate) mod pages;
pub(crate) mod problem;
pub(crate) mod upstream;
