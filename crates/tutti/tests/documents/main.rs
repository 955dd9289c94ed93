//! The documents: their links lead somewhere, the files that they name exist, and the generated references are current.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod alerts;
mod links;
mod page;
mod reference;
