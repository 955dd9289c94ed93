//! `tutti-queue`: the waiting room's service.

use std::process::ExitCode;

fn main() -> ExitCode {
    tutti_service::run::<tutti_queue::Queue>()
}
