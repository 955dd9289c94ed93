//! `tutti-ingest`: Kafka to Redis.

use std::process::ExitCode;

fn main() -> ExitCode {
    tutti_service::run::<tutti_ingest::Ingest>()
}
