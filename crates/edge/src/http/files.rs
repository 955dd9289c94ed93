//! The budget of open files. Each stream and each connection is an open file, and enough must be left for everything
//! else that an edge opens.

use tutti_sse::takeover::LINGERING;

/// Open files of an edge that belong to no client: the admin port, Redis, the other services, the log.
const OF_AN_EDGE: u64 = 256;
/// Open files of a worker that belong to no client, beside the connections that are read on after their last response.
const OF_A_WORKER: u64 = 16;
/// Fewest connections that a worker must be able to take. An edge with fewer would be of no use.
const LEAST_CONNECTIONS: u64 = 64;

/// Default of `streams.max` where the limit of open files does not matter.
const STREAMS: u64 = 50_000;

/// Returns the open files of an edge that are neither streams nor counted connections.
fn others(workers: u64) -> u64 {
    OF_AN_EDGE + workers * (OF_A_WORKER + LINGERING as u64)
}

/// Returns the default of `streams.max` for this limit of open files: at most half of the files that are left for
/// clients, and few enough that each worker can take its fewest connections.
pub(crate) fn streams_by_default(workers: usize, limit: u64) -> usize {
    let workers = workers as u64;
    let left = limit.saturating_sub(others(workers));
    (left / 2).min(left.saturating_sub(workers * LEAST_CONNECTIONS)).clamp(1, STREAMS) as usize
}

/// Returns how many connections that are not streams each worker may have: `configured`, or fewer, so that all of them
/// and all streams together stay below the limit of open files.
///
/// # Errors
/// What does not fit into the limit, and what to change.
pub(crate) fn connections_of_a_worker(
    streams: usize,
    workers: usize,
    configured: usize,
    limit: u64,
) -> Result<usize, String> {
    let (streams, workers) = (streams as u64, workers as u64);
    let others = others(workers);
    let least = others + workers * LEAST_CONNECTIONS;
    let needed = streams.saturating_add(least);
    if least >= limit {
        return Err(format!(
            "an edge with http.workers = {workers} needs {least} open files beside its streams, and this process may \
            open {limit}: lower http.workers, or raise the hard limit of open files (ulimit -Hn, LimitNOFILE= of \
            systemd, ulimits of a container)"
        ));
    }
    if needed > limit {
        return Err(format!(
            "streams.max = {streams} needs {needed} open files, one for each stream and {least} for all else, and this \
            process may open {limit}: lower streams.max to {}, or raise the hard limit of open files (ulimit -Hn, \
            LimitNOFILE= of systemd, ulimits of a container)",
            limit.saturating_sub(least),
        ));
    }
    let left = (limit - streams - others) / workers;
    Ok(configured.min(usize::try_from(left).unwrap_or(usize::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_and_connections_leave_files_for_the_rest() {
        for (workers, limit) in [
            (1, 600),
            (2, 1024),
            (2, 20_000),
            (19, 4096),
            (26, 4096),
            (64, 65_536),
            (8, 1 << 20),
            (2, u64::MAX),
        ] {
            let streams = streams_by_default(workers, limit);
            let each = connections_of_a_worker(streams, workers, 25_000, limit).expect("a default fits");
            let all = streams as u64 + workers as u64 * each as u64 + others(workers as u64);
            assert!(all <= limit && (64..=25_000).contains(&each), "{workers} {limit}: {streams} {each}");
        }
        assert_eq!(streams_by_default(2, 1 << 20), 50_000);
        let refused = connections_of_a_worker(streams_by_default(27, 4096), 27, 25_000, 4096).unwrap_err();
        assert!(refused.contains("lower http.workers"), "{refused}");
        let refused = connections_of_a_worker(700, 2, 25_000, 1000).unwrap_err();
        assert!(
            refused.starts_with("streams.max = 700 needs 1244 open files") && refused.contains("to 456,")
        );
        assert!(connections_of_a_worker(456, 2, 25_000, 1000).is_ok_and(|each| each == 64));
    }
}
