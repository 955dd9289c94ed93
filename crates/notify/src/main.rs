//! `tutti-notify`: the notifications' service.

use std::process::ExitCode;

fn main() -> ExitCode {
    tutti_service::run::<tutti_notify::Notify>()
}
