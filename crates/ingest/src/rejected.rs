//! Values that are not valid go to `<topic>.rejected`, with the reason and where they came from.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use tracing::warn;

use crate::batch::{Raw, Rejection};
use crate::config::Config;
use crate::kafka::{KafkaError, Producer};
use crate::metrics::{Metrics, RejectionLabel, Topic};

/// So much of a value is kept.
const MAX_VALUE_BYTES: usize = 64 * 1024;
/// So long a record may take to be written, before it is counted and given up.
const DELIVERY: Duration = Duration::from_secs(30);
/// A batch waits for its invalid records to be written, but so long at most: its valid ones must not
/// grow stale behind them. From then on none waits, until all of a batch were written again.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where a route's invalid records go.
#[derive(Clone)]
pub(crate) struct Rejected {
    producer: Producer,
    topic: Arc<str>,
    rejected_topic: Arc<str>,
    metrics: Metrics,
    /// The topic could not be written lately.
    failing: Arc<AtomicBool>,
}

impl Rejected {
    /// # Errors
    /// If the driver refuses its configuration.
    pub(crate) fn new(config: &Config, topic: &str, metrics: &Metrics) -> Result<Self, KafkaError> {
        Ok(Self {
            producer: Producer::new(config, DELIVERY)?,
            topic: topic.into(),
            rejected_topic: format!("{topic}.rejected").into(),
            metrics: metrics.clone(),
            failing: Arc::default(),
        })
    }

    /// Counts and writes the invalid records of a batch; returns when Kafka has them, or does not
    /// take them for now. What waits is bounded by the producer's queue.
    pub(crate) async fn reject(&self, partition: i32, records: Vec<Invalidated>) {
        if records.is_empty() {
            return;
        }
        let writing: Vec<_> =
            records.into_iter().map(|record| tokio::spawn(self.clone().write(partition, record))).collect();
        let all = async move { join_all(writing).await.into_iter().all(|written| written.unwrap_or(false)) };
        if self.failing.load(Ordering::Relaxed) {
            let failing = self.failing.clone();
            tokio::spawn(async move {
                if all.await {
                    failing.store(false, Ordering::Relaxed);
                }
            });
        } else if timeout(PATIENCE, all).await.is_err() {
            self.fail("Kafka does not answer");
        }
    }

    /// Says so, once until it goes well again.
    fn fail(&self, why: &str) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            warn!(
                topic = &*self.rejected_topic,
                why, "rejected records are not taken; going on without waiting"
            );
        }
    }

    /// Whether it was written.
    async fn write(self, partition: i32, record: Invalidated) -> bool {
        let Invalidated { offset, key, value, original_bytes, why } = record;
        let label = RejectionLabel { topic: self.topic.to_string(), reason: why.reason };
        self.metrics.rejected.get_or_create(&label).inc();
        let headers = [
            ("tutti-reason", why.reason.to_owned()),
            ("tutti-error", why.error),
            ("tutti-topic", self.topic.to_string()),
            ("tutti-partition", partition.to_string()),
            ("tutti-offset", offset.to_string()),
            ("tutti-original-bytes", original_bytes.to_string()),
        ];
        let sent = self.producer.send(&self.rejected_topic, key.as_deref(), value.as_deref(), &headers).await;
        if let Err(error) = &sent {
            self.metrics.rejected_lost.get_or_create(&Topic { topic: self.topic.to_string() }).inc();
            self.fail(&error.to_string());
        }
        sent.is_ok()
    }
}

/// An invalid record, copied out of the driver's memory.
pub(crate) struct Invalidated {
    offset: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    original_bytes: usize,
    why: Rejection,
}

impl Invalidated {
    pub(crate) fn new(record: Raw<'_>, why: Rejection) -> Self {
        let cut = |bytes: &[u8]| bytes[..bytes.len().min(MAX_VALUE_BYTES)].to_vec();
        Self {
            offset: record.offset,
            key: record.key.map(cut),
            value: record.value.map(cut),
            original_bytes: record.value.map_or(0, <[u8]>::len),
            why,
        }
    }
}
