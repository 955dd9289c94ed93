//! One bucket's way into Redis: what partitions bring at about the same time is filed in one call, for a
//! call costs Redis, the driver and each edge more than an item of it does.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tutti_feed::{Error, Filing, Mailboxes};

/// Filed in one call at most: it must not hold Redis up for long, and a record may be for a thousand users.
const MAX_CALL: usize = 128;
const MAX_CALL_BYTES: usize = 1 << 20;
/// Partitions bring what they have at the same moments, but not in the same instant.
const TOGETHER: Duration = Duration::from_millis(1);
/// Jobs that wait: a partition has one at a time, and waits for more to get in.
const JOBS_WAITING: usize = 64;

/// Files for all partitions of a route; cheap to clone.
#[derive(Clone)]
pub(crate) struct Filer(mpsc::Sender<Job>);

/// What one partition brings, in its order.
struct Job {
    filings: Vec<Arc<Filing>>,
    /// So many of them are filed.
    filed: usize,
    /// Redis's time at the last, microseconds since 1970; or why not all are filed.
    done: oneshot::Sender<Result<u64, Error>>,
}

impl Filer {
    /// Starts one; it ends when all its clones are dropped.
    pub(crate) fn start(mailboxes: Mailboxes, bucket: u32) -> Self {
        let (sender, receiver) = mpsc::channel(JOBS_WAITING);
        tokio::spawn(run(mailboxes, bucket, receiver));
        Self(sender)
    }

    /// Files all, in their order; Redis's time at the last, microseconds since 1970. Who gives up
    /// waiting has some of them filed.
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer; all, some or none may be filed then.
    pub(crate) async fn file(&self, filings: Vec<Arc<Filing>>) -> Result<u64, Error> {
        let (done, filed) = oneshot::channel();
        let _ = self.0.send(Job { filings, filed: 0, done }).await;
        filed.await.expect("a filer outlives those who use it")
    }
}

async fn run(mailboxes: Mailboxes, bucket: u32, mut receiver: mpsc::Receiver<Job>) {
    let mut jobs: Vec<Job> = Vec::new();
    loop {
        if jobs.is_empty() {
            let Some(job) = receiver.recv().await else { return };
            jobs.push(job);
            sleep(TOGETHER).await;
        }
        while let Ok(job) = receiver.try_recv() {
            jobs.push(job);
        }
        jobs.retain(|job| !job.done.is_closed());
        if jobs.is_empty() {
            continue;
        }
        let shares = share(&jobs);
        let call = jobs.iter().zip(&shares).flat_map(|(job, n)| &job.filings[job.filed..][..*n]);
        let filed = mailboxes.file(bucket, call.map(AsRef::as_ref)).await;
        let mut left = Vec::new();
        for (mut job, share) in jobs.into_iter().zip(shares) {
            job.filed += share;
            let has_more = job.filed < job.filings.len();
            if has_more && filed.is_ok() {
                left.push(job);
            } else {
                // Who gave up waiting needs no answer.
                let _ = job.done.send(filed.clone().map(|filed| filed.time_us));
            }
        }
        jobs = left;
    }
}

/// How many of each job's filings go into the next call: of all jobs alike, so that one with many does not
/// keep the others waiting.
fn share(jobs: &[Job]) -> Vec<usize> {
    let (most, most_bytes) = ((MAX_CALL / jobs.len()).max(1), MAX_CALL_BYTES / jobs.len());
    let share = |job: &Job| {
        let mut bytes = 0;
        let fits = |filing: &&Arc<Filing>| {
            bytes += filing.payload.len() + filing.address.len();
            bytes <= most_bytes
        };
        let left = &job.filings[job.filed..];
        left.iter().take(most).take_while(fits).count().max(1).min(left.len())
    };
    jobs.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(filings: usize, bytes: usize, filed: usize) -> Job {
        let filing = Filing {
            address: String::new(),
            id: String::new(),
            expires_us: 0,
            payload: vec![0; bytes].into(),
        };
        let filing = Arc::new(filing);
        Job { filings: vec![filing; filings], filed, done: oneshot::channel().0 }
    }

    #[test]
    fn jobs_share_a_call() {
        assert_eq!(share(&[job(1000, 1, 0)]), [MAX_CALL]);
        assert_eq!(share(&[job(1000, 1, 0), job(3, 1, 2)]), [MAX_CALL / 2, 1]);
        assert_eq!(share(&[job(0, 0, 0)]), [0]);
    }

    #[test]
    fn a_call_is_bounded_in_bytes_and_has_one_at_least() {
        assert_eq!(share(&[job(3, MAX_CALL_BYTES + 1, 0), job(1, 1, 0)]), [1, 1]);
        assert_eq!(share(&[job(9, MAX_CALL_BYTES / 4, 0)]), [4]);
    }
}
