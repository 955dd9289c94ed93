//! The limit of open files of the process. Each stream of an edge is an open file.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{debug, warn};

/// Raises the limit of open files to the most that is allowed: container engines start processes with as few as 1024.
pub fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most).map(|()| most));
    match raised {
        Ok(limit) => debug!(limit, "the limit of open files is raised"),
        Err(error) => warn!(%error, "the limit of open files cannot be raised and stays as it is"),
    }
}

/// Returns how many files this process may have open once [`raise_file_limit`] was called, or `u64::MAX` if the
/// system does not tell.
#[must_use]
pub fn file_limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, most)| most)
}
