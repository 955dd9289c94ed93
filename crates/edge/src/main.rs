//! The program `tutti-edge`, which serves the feeds in Redis as Server-Sent Events.

use std::process::ExitCode;

/// The allocator of the program. jemalloc returns memory to the system after a herd of clients has left, which glibc's
/// allocator does not. `.cargo/config.toml` sets its options. Development builds leave it out, because it takes long to
/// compile.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[cfg(not(any(feature = "jemalloc", debug_assertions)))]
compile_error!("a release build uses jemalloc: add `--features jemalloc`");

fn main() -> ExitCode {
    tutti_service::run::<tutti_edge::Edge>()
}
