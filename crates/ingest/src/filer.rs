//! Files the notifications of all partitions of a route in the mailboxes of one bucket.
//!
//! A call of a script costs Redis, the client library and each edge more than one item in it does. So what several
//! partitions bring at about the same time goes into one call.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tutti_feed::{Error, Filing, Mailboxes};

/// Filings in one call at most. A call must not hold Redis up for long, and one record may be for a thousand users.
const MAX_CALL: usize = 128;
/// Bytes in one call at most, if it has more than one filing of each job.
const MAX_CALL_BYTES: usize = 1 << 20;
/// How long the first job waits for others. Partitions flush at the same moments, but not in the same instant.
const COLLECT: Duration = Duration::from_millis(1);
/// Jobs that wait in the queue. A partition has one job at a time, and waits if the queue is full.
const MAX_WAITING_JOBS: usize = 64;

/// A handle to the task that files in one bucket. Clones share the task, which ends with the last of them.
#[derive(Clone)]
pub(crate) struct Filer(mpsc::Sender<Job>);

/// What one partition files, in the order of its records.
struct Job {
    filings: Vec<Arc<Filing>>,
    /// The number of filings that Redis already has.
    filed: usize,
    /// Receives Redis's time at the last filing, in microseconds since 1970, or why not all are filed.
    done: oneshot::Sender<Result<u64, Error>>,
}

impl Filer {
    /// Spawns the task of one bucket.
    pub(crate) fn start(mailboxes: Mailboxes, bucket: u32) -> Self {
        let (sender, receiver) = mpsc::channel(MAX_WAITING_JOBS);
        tokio::spawn(run(mailboxes, bucket, receiver));
        Self(sender)
    }

    /// Files all, in their order. Returns Redis's time at the last, in microseconds since 1970. If this future is dropped,
    /// some may be filed.
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer. All, some or none may be filed then.
    pub(crate) async fn file(&self, filings: Vec<Arc<Filing>>) -> Result<u64, Error> {
        let (done, filed) = oneshot::channel();
        let _ = self.0.send(Job { filings, filed: 0, done }).await;
        filed.await.expect("the task of a filer outlives its handles")
    }
}

async fn run(mailboxes: Mailboxes, bucket: u32, mut receiver: mpsc::Receiver<Job>) {
    let mut jobs: Vec<Job> = Vec::new();
    loop {
        if jobs.is_empty() {
            let Some(job) = receiver.recv().await else { return };
            jobs.push(job);
            sleep(COLLECT).await;
        }
        while let Ok(job) = receiver.try_recv() {
            jobs.push(job);
        }
        jobs.retain(|job| !job.done.is_closed());
        if jobs.is_empty() {
            continue;
        }
        let shares = shares(&jobs);
        let call = jobs.iter().zip(&shares).flat_map(|(job, n)| &job.filings[job.filed..][..*n]);
        let filed = mailboxes.file(bucket, call.map(AsRef::as_ref)).await;
        let mut left = Vec::new();
        for (mut job, share) in jobs.into_iter().zip(shares) {
            job.filed += share;
            let has_more = job.filed < job.filings.len();
            if has_more && filed.is_ok() {
                left.push(job);
            } else {
                // A partition that no longer waits needs no answer.
                let _ = job.done.send(filed.clone().map(|filed| filed.time_us));
            }
        }
        jobs = left;
    }
}

/// Returns how many filings of each job go into the next call. All jobs get the same share, so that one with many filings
/// does not keep the others waiting.
fn shares(jobs: &[Job]) -> Vec<usize> {
    let (max, max_bytes) = ((MAX_CALL / jobs.len()).max(1), MAX_CALL_BYTES / jobs.len());
    let share = |job: &Job| {
        let mut bytes = 0;
        let fits = |filing: &&Arc<Filing>| {
            bytes += filing.payload.len() + filing.address.len();
            bytes <= max_bytes
        };
        let left = &job.filings[job.filed..];
        left.iter().take(max).take_while(fits).count().max(1).min(left.len())
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
        assert_eq!(shares(&[job(1000, 1, 0)]), [MAX_CALL]);
        assert_eq!(shares(&[job(1000, 1, 0), job(3, 1, 2)]), [MAX_CALL / 2, 1]);
        assert_eq!(shares(&[job(0, 0, 0)]), [0]);
    }

    #[test]
    fn a_call_is_bounded_in_bytes_and_has_one_at_least() {
        assert_eq!(shares(&[job(3, MAX_CALL_BYTES + 1, 0), job(1, 1, 0)]), [1, 1]);
        assert_eq!(shares(&[job(9, MAX_CALL_BYTES / 4, 0)]), [4]);
    }
}
