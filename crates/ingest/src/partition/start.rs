//! Where a partition's reading begins.

use std::time::Duration;

use tokio::time::sleep;
use tracing::warn;
use tutti_feed::Error as FeedError;

use super::clock::FeedClock;
use super::lane::{Partition, PartitionError};
use crate::config::Start;
use crate::sink::Sink;

/// How often a position beyond the partition's end is read before it is believed. A broker that has just restarted may
/// not know its end yet.
const READS_BEYOND_END: u32 = 4;
/// Pause between these reads.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// Where to begin, and what the feed does not know yet.
pub(super) struct StartPoint {
    /// Offset of the first record to fetch.
    pub(super) position: i64,
    /// Redis did not know the partition when it was asked.
    pub(super) is_new: bool,
    pub(super) clock: FeedClock,
}

impl<D: Sync, S: Sink> Partition<D, S> {
    /// Asks Redis where the partition stands, and compares that with what Kafka still has.
    pub(super) async fn start_point(&self) -> Result<StartPoint, PartitionError> {
        let (consumer, partition) = (&self.context.consumer, self.assigned.partition);
        for read in 1.. {
            let clock = FeedClock::at(tutti_feed::time_us(&self.context.redis).await?);
            let stood = self.sink.position().await?;
            let (start, end) = consumer.watermarks(partition).await?;
            let Some(stood) = stood else {
                let position = match self.context.route.start {
                    Start::Beginning => start,
                    Start::End => end,
                    Start::LogAge => {
                        let since = clock.now_ms() - self.lookback.as_millis() as i64;
                        consumer.offset_at(partition, since, end).await?
                    }
                };
                return Ok(StartPoint { position, is_new: true, clock });
            };
            let reason = if stood.newest < start {
                "kafka_retention"
            } else if stood.newest > end {
                if read < READS_BEYOND_END {
                    sleep(READ_PAUSE).await;
                    continue;
                }
                "topic_made_anew"
            } else {
                return Ok(StartPoint { position: stood.resume.max(start), is_new: false, clock });
            };
            self.announce_gap(stood.newest, start, reason).await?;
        }
        unreachable!("the loop ends by returning")
    }

    /// Announces in the feed itself that Kafka no longer has the records that Redis expects next.
    async fn announce_gap(&self, from: i64, to: i64, reason: &str) -> Result<(), FeedError> {
        let source = &self.source;
        warn!(source, from, to, reason, "Records are missing in Kafka. Their clients receive a reset.");
        if self.sink.announce_gap(from, to, reason).await? {
            self.context.metrics.gaps.get_or_create(&self.topic).inc();
        }
        Ok(())
    }
}
