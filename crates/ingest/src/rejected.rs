//! Invalid records go to the topic `<topic>.rejected`, with the reason and where they came from.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use tracing::warn;
use tutti_kafka::{ConfigError, Producer, ProducerOptions, ProducerRecord};

use crate::config::{CLIENT_ID, Config};
use crate::decode::Rejection;
use crate::metrics::{Metrics, RejectionLabel, Topic};
use crate::record::RawRecord;

/// Longer keys and values are cut to this.
const MAX_VALUE_BYTES: usize = 64 * 1024;
/// Delivery timeout. After it the rejected record is dropped and counted.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// A batch waits this long for its invalid records to be written: its valid ones must not grow stale behind them. After
/// a timeout no batch waits, until all invalid records of one batch have been written again.
const BATCH_WAIT: Duration = Duration::from_secs(3);

/// Writes the invalid records of one route.
#[derive(Clone)]
pub(crate) struct Rejected {
    producer: Producer,
    topic: Arc<str>,
    rejected_topic: Arc<str>,
    metrics: Metrics,
    /// Writing has failed, and has not fully succeeded since.
    is_failing: Arc<AtomicBool>,
}

impl Rejected {
    /// Makes the writer of a topic's invalid records. It connects to Kafka with the first of them.
    ///
    /// # Errors
    /// If the Kafka client refuses the configuration.
    pub(crate) fn new(config: &Config, topic: &str, metrics: &Metrics) -> Result<Self, ConfigError> {
        let options = ProducerOptions {
            client_id: CLIENT_ID,
            delivery_timeout: Some(DELIVERY_TIMEOUT),
            linger: Duration::from_millis(5),
        };
        Ok(Self {
            producer: Producer::lazy(&config.kafka, &options)?,
            topic: topic.into(),
            rejected_topic: format!("{topic}.rejected").into(),
            metrics: metrics.clone(),
            is_failing: Arc::default(),
        })
    }

    /// Counts and writes the invalid records of a batch. Returns when Kafka has them, or does not take them for now. The
    /// queue of the producer bounds the records that wait.
    pub(crate) async fn write(&self, partition: i32, records: Vec<RejectedRecord>) {
        if records.is_empty() {
            return;
        }
        let writing: Vec<_> = records
            .into_iter()
            .map(|record| tokio::spawn(self.clone().write_one(partition, record)))
            .collect();
        let all = async move { join_all(writing).await.into_iter().all(|written| written.unwrap_or(false)) };
        if self.is_failing.load(Ordering::Relaxed) {
            let is_failing = self.is_failing.clone();
            tokio::spawn(async move {
                if all.await {
                    is_failing.store(false, Ordering::Relaxed);
                }
            });
        } else if timeout(BATCH_WAIT, all).await.is_err() {
            self.fail("Kafka does not answer");
        }
    }

    /// Remembers and logs a failure, once until writing fully succeeds again.
    fn fail(&self, why: &str) {
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            let topic = &*self.rejected_topic;
            warn!(
                topic,
                why, "Writing rejected records failed. Valid records go on without waiting for them."
            );
        }
    }

    /// Returns whether the record was written.
    async fn write_one(self, partition: i32, record: RejectedRecord) -> bool {
        let reason = record.why.reason;
        self.metrics.rejected.get_or_create(&RejectionLabel { topic: self.topic.to_string(), reason }).inc();
        let headers: [(&str, &str); 6] = [
            ("tutti-reason", reason),
            ("tutti-error", &record.why.error),
            ("tutti-topic", &self.topic),
            ("tutti-partition", &partition.to_string()),
            ("tutti-offset", &record.offset.to_string()),
            ("tutti-original-bytes", &record.original_bytes.to_string()),
        ];
        let invalid = ProducerRecord {
            topic: &self.rejected_topic,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
            ..ProducerRecord::default()
        };
        let sent = self.producer.send(&invalid).await;
        if let Err(error) = &sent {
            self.metrics.rejected_lost.get_or_create(&Topic { topic: self.topic.to_string() }).inc();
            self.fail(&error.to_string());
        }
        sent.is_ok()
    }
}

/// An invalid record, copied out of the memory of the client library.
pub(crate) struct RejectedRecord {
    offset: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    original_bytes: usize,
    why: Rejection,
}

impl RejectedRecord {
    pub(crate) fn new(record: RawRecord<'_>, why: Rejection) -> Self {
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
