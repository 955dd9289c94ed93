//! Combined streams in one connection.

pub(crate) mod join;
pub(crate) mod rewrite;
pub(crate) mod routes;
