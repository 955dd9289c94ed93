//! `tutti-ingest`: Kafka to Redis.

use std::process::ExitCode;

/// Cheaper than glibc's where one thread gives back what another took, as the driver's do. Its settings are
/// in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    tutti_service::run::<tutti_ingest::Ingest>()
}
