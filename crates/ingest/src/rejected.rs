//! Values that are not valid go to `<topic>.rejected`, with the reason and where they came from.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;
use tutti_model::location::Invalid;

use crate::batch::Raw;
use crate::config::Config;
use crate::kafka::{KafkaError, Producer};
use crate::metrics::{Metrics, Rejection, Topic};

/// So much of a value is kept.
const MAX_VALUE_BYTES: usize = 64 * 1024;
/// So long a record may take to be written, before it is counted and given up,
const DELIVERY: Duration = Duration::from_secs(30);
/// and so long nothing is written after that: else each batch would wait as long again.
const PAUSE: Duration = Duration::from_secs(60);

/// Where a route's invalid records go.
#[derive(Clone)]
pub(crate) struct Rejected {
    producer: Producer,
    topic: String,
    rejected_topic: String,
    metrics: Metrics,
    paused_until: Arc<Mutex<Option<Instant>>>,
}

impl Rejected {
    /// # Errors
    /// If the driver refuses its configuration.
    pub(crate) fn new(config: &Config, topic: &str, metrics: &Metrics) -> Result<Self, KafkaError> {
        Ok(Self {
            producer: Producer::new(config, DELIVERY)?,
            topic: topic.to_owned(),
            rejected_topic: format!("{topic}.rejected"),
            metrics: metrics.clone(),
            paused_until: Arc::default(),
        })
    }

    /// Counts a record, and writes it; returns when Kafka has it, or it was given up.
    pub(crate) async fn reject(&self, partition: i32, rejection: Invalidated) {
        let Invalidated { offset, key, value, original_bytes, invalid } = rejection;
        let label = Rejection { topic: self.topic.clone(), reason: invalid.reason() };
        self.metrics.rejected.get_or_create(&label).inc();
        let now = Instant::now();
        let paused =
            self.paused_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|t| t > now);
        if !paused {
            let headers = [
                ("tutti-reason", invalid.reason().to_owned()),
                ("tutti-error", invalid.to_string()),
                ("tutti-topic", self.topic.clone()),
                ("tutti-partition", partition.to_string()),
                ("tutti-offset", offset.to_string()),
                ("tutti-original-bytes", original_bytes.to_string()),
            ];
            let sent =
                self.producer.send(&self.rejected_topic, key.as_deref(), value.as_deref(), &headers).await;
            let Err(error) = sent else { return };
            warn!(topic = self.rejected_topic, %error, "a rejected record cannot be written; counting only for a while");
            let until = Some(Instant::now() + PAUSE);
            *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
        }
        self.metrics.rejected_lost.get_or_create(&Topic { topic: self.topic.clone() }).inc();
    }
}

/// An invalid record, copied out of the driver's memory.
pub(crate) struct Invalidated {
    offset: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    original_bytes: usize,
    invalid: Invalid,
}

impl Invalidated {
    pub(crate) fn new(record: Raw<'_>, invalid: Invalid) -> Self {
        let cut = |bytes: &[u8]| bytes[..bytes.len().min(MAX_VALUE_BYTES)].to_vec();
        Self {
            offset: record.offset,
            key: record.key.map(cut),
            value: record.value.map(cut),
            original_bytes: record.value.map_or(0, <[u8]>::len),
            invalid,
        }
    }
}
