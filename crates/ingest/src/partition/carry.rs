//! Stores batch after batch.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{debug, warn};
use tutti_kafka::Records;

use super::clock::FeedClock;
use super::lane::{Partition, PartitionError};
use super::start::StartPoint;
use crate::batch::Batch;
use crate::decode::Decoder;
use crate::sink::{Sink, Stored};

/// A partition without records for this long is asked for its end, which only its leader can tell.
const SILENT: Duration = Duration::from_secs(3);
/// While records are held back, their number is noted again each time this has passed.
const NOTE_INTERVAL: Duration = Duration::from_secs(5);
/// Longest pause before a batch that Redis did not take is stored again.
const MAX_RETRY_PAUSE: Duration = Duration::from_millis(500);

/// What was last noted of records that are held back.
#[derive(Default)]
struct NotedHeldBack {
    records: u64,
    at: Option<Instant>,
}

impl<D: Decoder, S: Sink<Part = D::Part>> Partition<D, S> {
    /// Stores records from the start point on. Returns once Redis refuses a batch, which means that it lost records.
    pub(super) async fn carry(
        &self,
        records: &mut Records<'_>,
        start: StartPoint,
    ) -> Result<(), PartitionError> {
        let StartPoint { position, mut is_new, mut clock } = start;
        let (consumer, partition) = (&self.context.consumer, self.assigned.partition);
        let mut last_append = Instant::now();
        let mut last_proof = Instant::now();
        let mut noted = NotedHeldBack::default();
        let mut batch = self.gather(records, position, clock, last_append).await?;
        loop {
            if batch.records() > 0 {
                last_proof = Instant::now();
            } else if last_proof.elapsed() >= SILENT {
                // The partition is quiet, or its leader is dead. An empty batch promises that no record came, so the
                // leader has to answer first.
                consumer.watermarks(partition).await?;
                last_proof = Instant::now();
            }
            last_append = Instant::now();
            let (from, to) = (batch.from(), batch.to());
            let is_quiet = batch.records() == 0 && !is_new;
            let held_back = if is_quiet { consumer.held_back(&self.assigned, to) } else { 0 };
            self.note_held_back(held_back, &mut noted, clock).await;
            if held_back > 0 {
                // An empty batch would promise that no record came. Without one, a loss in Redis is noticed here.
                if matches!(self.sink.stands_at(to).await, Ok(false)) {
                    self.warn_of_loss(from);
                    return Ok(());
                }
                batch = self.gather(records, to, clock, last_append).await?;
                continue;
            }
            // While Redis stores one batch, the next is gathered.
            let (stored, next) =
                tokio::join!(self.store(batch, is_new), self.gather(records, to, clock, last_append));
            let Some((position, at)) = stored else {
                self.warn_of_loss(from);
                return Ok(());
            };
            is_new = false;
            if let Some(time_us) = at {
                clock = FeedClock::at(time_us);
            }
            consumer.store_offset(partition, position);
            batch = next?;
            if position > to {
                let there = batch.skip_to(position) as u64;
                self.context.metrics.duplicates.get_or_create(&self.topic).inc_by(there);
            }
        }
    }

    fn warn_of_loss(&self, from: i64) {
        let source = &self.source;
        warn!(source, from, "Redis may have lost records. The partition goes back to where Redis stands.");
    }

    /// Notes in Redis how many records are held back, if that has changed or was noted a while ago.
    async fn note_held_back(&self, records: u64, noted: &mut NotedHeldBack, clock: FeedClock) {
        let is_due = noted.at.is_none_or(|at| at.elapsed() >= NOTE_INTERVAL);
        if records == noted.records && (records == 0 || !is_due) {
            return;
        }
        match self.sink.note_held_back(records, clock.now_ms()).await {
            Ok(()) => *noted = NotedHeldBack { records, at: Some(Instant::now()) },
            Err(error) => {
                debug!(
                    source = self.source,
                    %error,
                    "Noting in Redis how many records are held back failed. It is noted with the next batch."
                );
            }
        }
    }

    /// Stores a batch, and tries again for as long as Redis fails. Returns the position after it and, if Redis wrote,
    /// Redis's time in microseconds since 1970. Returns `None` if Redis refused the batch.
    async fn store(&self, mut batch: Batch<S::Part>, is_new: bool) -> Option<(i64, Option<u64>)> {
        let metrics = &self.context.metrics;
        let mut failures = 0u32;
        loop {
            match self.sink.store(&batch, is_new).await {
                Ok(Stored::At(time_us)) => {
                    metrics.applied.get_or_create(&self.topic).inc_by(batch.records() as u64);
                    if let Some(time_us) = time_us {
                        batch.ages((time_us / 1000) as i64).for_each(|age| metrics.delay.observe(age));
                    }
                    return Some((batch.to(), time_us));
                }
                Ok(Stored::Duplicate(position)) => {
                    let there = batch.skip_to(position) as u64;
                    // After a failure, the records may be there from the attempt that Redis did not answer.
                    let counter = if failures > 0 { &metrics.applied } else { &metrics.duplicates };
                    counter.get_or_create(&self.topic).inc_by(there);
                    if batch.records() == 0 {
                        return Some((batch.to(), None));
                    }
                }
                Ok(Stored::GoBack) => return None,
                Err(error) => {
                    metrics.append_errors.get_or_create(&self.topic).inc();
                    failures += 1;
                    if failures.is_power_of_two() {
                        let source = &self.source;
                        warn!(source, %error, failures, "Storing a batch in Redis failed. It is tried again.");
                    }
                    sleep(MAX_RETRY_PAUSE.min(Duration::from_millis(20 << failures.min(5)))).await;
                }
            }
        }
    }
}
