//! `tutti-edge`: Redis to Server-Sent Events.

use std::process::ExitCode;

/// jemalloc gives memory back after a herd of clients left, which glibc's allocator does not. Its settings are in
/// `.cargo/config.toml`. Development builds leave it out, because it takes long to compile.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[cfg(not(any(feature = "jemalloc", debug_assertions)))]
compile_error!("a release build uses jemalloc: add `--features jemalloc`");

fn main() -> ExitCode {
    tutti_service::run::<tutti_edge::Edge>()
}
