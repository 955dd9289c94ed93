//! `tutti-edge`: Redis to Server-Sent Events.

use std::process::ExitCode;

/// Gives memory back after a herd of clients left, which glibc's allocator does not. Its settings
/// are in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    tutti_service::run::<tutti_edge::Edge>()
}
