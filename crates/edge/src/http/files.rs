//! Open files: each stream and each connection is one, and what else an edge needs must not want for them.

use tutti_sse::takeover::LINGERING;

/// Files of an edge that are no clients': the admin port, Redis, the other services, the log.
const OF_AN_EDGE: u64 = 256;
/// Files of a worker that are no clients', beside the connections whose last answer is under way.
const OF_A_WORKER: u64 = 16;
/// An edge that could take no more connections than this for each worker would not be of use.
const LEAST_CONNECTIONS: u64 = 64;

/// Streams of an edge that may open as many files as it likes, unless it is told otherwise.
const STREAMS: u64 = 50_000;

/// Files that are neither streams nor connections.
fn others(workers: u64) -> u64 {
    OF_AN_EDGE + workers * (OF_A_WORKER + LINGERING as u64)
}

/// Returns how many streams an edge takes unless it is told otherwise: at most half of what the limit leaves, and no
/// more than leave each worker the fewest connections that are of use.
pub(crate) fn streams_by_default(workers: usize, limit: u64) -> usize {
    let workers = workers as u64;
    let left = limit.saturating_sub(others(workers));
    (left / 2).min(left.saturating_sub(workers * LEAST_CONNECTIONS)).clamp(1, STREAMS) as usize
}

/// Returns how many connections that are no streams each worker may have, so that with all of them and all streams
/// there are files left: at most `most`.
///
/// # Errors
/// What does not fit, and what to do.
pub(crate) fn connections_of_a_worker(
    streams: usize,
    workers: usize,
    most: usize,
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
    Ok(most.min(usize::try_from(left).unwrap_or(usize::MAX)))
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
