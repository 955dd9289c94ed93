//! `tutti-queue`: the service of the waiting room.

use std::process::ExitCode;

fn main() -> ExitCode {
    tutti_service::run::<tutti_queue::Queue>()
}
