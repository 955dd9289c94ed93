//! `tutti-notify`: takes notifications to users.

use std::process::ExitCode;

fn main() -> ExitCode {
    tutti_service::run::<tutti_notify::Notify>()
}
