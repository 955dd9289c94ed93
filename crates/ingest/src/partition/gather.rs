//! Collects the records of a batch.

use std::time::Duration;

use futures_util::future::FutureExt as _;
use tokio::time::{Instant, sleep_until, timeout_at};
use tutti_kafka::{Error as KafkaError, Records};

use super::clock::FeedClock;
use super::lane::Partition;
use crate::batch::Batch;
use crate::decode::{Decoded, Decoder};
use crate::record::RawRecord;
use crate::rejected::RejectedRecord;
use crate::sink::Sink;

/// A partition without records for this long returns an empty batch, which moves the feed's time.
const QUIET: Duration = Duration::from_secs(1);

impl<D: Decoder, S: Sink<Part = D::Part>> Partition<D, S> {
    /// Returns the next batch from `position` on. It ends when it is full or its linger time is over, and is empty after
    /// a quiet time. Invalid records are written to the rejected topic before this returns.
    pub(super) async fn gather(
        &self,
        records: &mut Records<'_>,
        position: i64,
        clock: FeedClock,
        last_append: Instant,
    ) -> Result<Batch<S::Part>, KafkaError> {
        let mut batch = Batch::new(position);
        let mut rejected = Vec::new();
        let quiet_until = last_append + QUIET;
        let flush_at = self.context.next_flush(S::LINGER, last_append);
        let mut now_ms = clock.now_ms();
        while !batch.is_full() {
            let record = match records.next().now_or_never() {
                Some(record) => record?,
                None if batch.records() == 0 => match timeout_at(quiet_until, records.next()).await {
                    Ok(record) => {
                        now_ms = clock.now_ms();
                        record?
                    }
                    Err(_) => break,
                },
                // Sleeping, the task is not woken by each record that comes meanwhile.
                None if Instant::now() < flush_at => {
                    sleep_until(flush_at).await;
                    now_ms = clock.now_ms();
                    continue;
                }
                None => break,
            };
            let record = RawRecord::from(&record);
            if record.offset < position {
                self.context.metrics.duplicates.get_or_create(&self.topic).inc();
                continue;
            }
            let part = match self.decoder.decode(record, now_ms) {
                Ok(Decoded::Part(part)) => Some(part),
                Ok(Decoded::Stale) => {
                    self.context.metrics.stale.get_or_create(&self.topic).inc();
                    None
                }
                Err(why) => {
                    rejected.push(RejectedRecord::new(record, why));
                    None
                }
            };
            batch.push(&record, part);
        }
        self.context.rejected.write(self.assigned.partition, rejected).await;
        Ok(batch)
    }
}
