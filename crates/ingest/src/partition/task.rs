//! A partition's task, from its assignment to its revocation.

use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::sleep;
use tracing::{info, warn};

use super::lane::{Partition, PartitionError};
use crate::decode::Decoder;
use crate::sink::Sink;

/// Pause before a partition that failed starts again.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

impl<D: Decoder, S: Sink<Part = D::Part>> Partition<D, S> {
    /// Runs until the group revokes the partition.
    pub(crate) async fn run(self) {
        let revoked = self.assigned.revoked.clone();
        tokio::select! {
            () = revoked.cancelled() => {}
            () = self.restart_for_ever() => {}
        }
    }

    async fn restart_for_ever(&self) {
        let source = &self.source;
        loop {
            if let Err(error) = self.read_from_redis_position().await {
                warn!(source, %error, "Reading the partition failed. It starts again from where Redis stands.");
                sleep(RESTART_PAUSE).await;
            }
            if let Err(error) = self.context.consumer.stop_fetching(&self.assigned) {
                warn!(source, %error, "The Kafka client refused to stop fetching the partition.");
            }
        }
    }

    /// Reads until Redis refuses a batch, which means that it lost records.
    async fn read_from_redis_position(&self) -> Result<(), PartitionError> {
        let start = self.start_point().await?;
        let queue = self.context.consumer.queue(&self.assigned)?;
        self.context.consumer.start_fetching(&self.assigned, start.position)?;
        info!(
            source = self.source,
            to = self.sink.name(),
            offset = start.position,
            is_new = start.is_new,
            "Fetching the partition."
        );
        let _reading = ReadingGuard::new(self.context.metrics.partitions.get_or_create_owned(&self.topic));
        self.carry(&mut queue.records(), start).await
    }
}

/// Counts a partition in a gauge while it is read.
struct ReadingGuard(Gauge);

impl ReadingGuard {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for ReadingGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
