//! Checks of the structure of the workspace, which `tests/workspace.rs` runs on every crate.
//!
//! A module must not import itself, neither directly nor through others: such a ring makes it impossible to read,
//! test or move one of its modules without the others. [`tokens`] reads a source file, without comments and strings.
//! [`imports`] finds the paths that a file names: in its `use` lines, and in its code. [`modules`] makes a graph of a
//! crate: its modules are its files, and an edge goes from a module to each whose items it names. [`rings`] finds the
//! rings of such a graph.
//!
//! What a test names does not count: items under `#[cfg(test)]` are left out. A name that a module only re-exports,
//! as `pub use child::Name`, is taken to be of the module that defines it.
//!
//! The crate has no dependencies, so that `make check` builds it within seconds.

pub mod imports;
pub mod modules;
pub mod rings;
pub mod tokens;
