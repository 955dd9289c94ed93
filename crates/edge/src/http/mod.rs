//! HTTP, whatever is asked for: tokens, limits, problems, and the opening of streams. This folder knows no job.
//!
//! The path of a request:
//!
//! 1. `worker.rs` counts the connection and gives it to actix-web, which parses the request. A connection that brings
//!    anything else receives a problem document too ([`problem::unreadable_request`]).
//! 2. The middleware stands around every handler. [`problem::problem_documents`] makes a problem document of every
//!    error, [`routes::guard_request`] refuses long queries and marks forged requests, and [`compress`] compresses
//!    documents.
//! 3. The handler of a job checks the token. [`auth`] finds it in the request and verifies it without waiting for
//!    anything: with the keys of the configuration, and those that [`issuer_keys`] fetched last. [`claims`] says what a valid
//!    token grants and for how long.
//! 4. The handler answers from what its job keeps, or asks a service through [`upstream`], which tries one replica
//!    after the other. It returns a response or a [`problem::Problem`].
//!
//! A handler of a stream reads the last id and the longest life from the query ([`query`]), and passes the
//! [`open::Part`] of its job to [`open::open`]. That counts the stream against the limits of the edge, the client's
//! address ([`client_address`]) and the user, chooses the compression and the end, and leaves an admission in the slot
//! of the connection, where `tutti-sse` finds it. A client that is over a limit receives the event `busy` with status
//! 200, because a browser's EventSource gives up for good at any other status.
//!
//! [`shared`] holds what the handlers of all jobs share, [`settings`] and [`files`] the bounds of connections and
//! streams, [`pages`] the HTML pages.
//!
//! *Architecture Invariant:* nothing that a client sends is an error in the log.
//!
//! *Architecture Invariant:* tokens and query strings reach no log. Problems name the path of a request only.
//!
//! *Architecture Invariant:* no text of a driver, a script or a peer reaches a client. A message of a service is
//! passed on only if the service marks it with a reason. Any other failure is a fixed sentence with a request id, and
//! the error is in the log under that id.
//!
//! *Architecture Invariant:* nothing is kept of a request's body before its token was found good.

pub(crate) mod auth;
pub(crate) mod claims;
pub(crate) mod client_address;
pub(crate) mod compress;
pub(crate) mod files;
pub(crate) mod issuer_keys;
pub(crate) mod open;
pub(crate) mod pages;
pub(crate) mod problem;
pub(crate) mod query;
pub(crate) mod refusal;
pub(crate) mod routes;
pub(crate) mod settings;
pub(crate) mod shared;
pub(crate) mod upstream;
