//! `tutti-ingest`: carries records from Kafka to Redis.

use std::process::ExitCode;

/// jemalloc is cheaper than glibc's allocator where one thread frees what another allocated, as the threads of
/// the Kafka client do. Its settings are in `.cargo/config.toml`. Development builds leave it out, because it takes long to
/// compile.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[cfg(not(any(feature = "jemalloc", debug_assertions)))]
compile_error!("a release build uses jemalloc: add `--features jemalloc`");

fn main() -> ExitCode {
    tutti_service::run::<tutti_ingest::Ingest>()
}
