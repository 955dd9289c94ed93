//! HTTP, whatever is asked for. This folder knows no job.
//!
//! The path of a request: actix-web parses it, [`problem`] stands around it and makes a problem document of every error,
//! [`routes`] guards its query and marks forged requests, [`compress`] compresses documents. A handler of a job checks
//! its token ([`auth`], whose keys [`jwks`] keeps current), asks a service where it needs one ([`upstream`]), and
//! answers. A handler of a stream passes what it has found to [`open`], which counts the stream against the limits
//! of its client ([`client_address`]) and leaves its terms for the hub.

pub(crate) mod auth;
pub(crate) mod client_address;
pub(crate) mod compress;
pub(crate) mod files;
pub(crate) mod jwks;
pub(crate) mod open;
pub(crate) mod pages;
pub(crate) mod problem;
pub(crate) mod query;
pub(crate) mod routes;
pub(crate) mod settings;
pub(crate) mod shared;
pub(crate) mod upstream;
