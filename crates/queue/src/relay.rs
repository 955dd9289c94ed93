//! Copies the records of one room to Kafka, in order, and moves the position of the relay only after the acknowledgement
//! of Kafka.
//!
//! One replica at a time has the lease of a room. A replica that lost its lease without noticing does no harm, because
//! consumers drop what they already have of a (room, epoch, version, time). The time is part of it because a failover that
//! lost changes gives their versions out again, at other times.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::time::{Instant, interval_at, sleep};
use tracing::warn;
use tutti_feed::{Client, Position, Record, read_log};
use tutti_kafka::{Error as KafkaError, Producer, ProducerRecord, Session};
use tutti_model::{Format, RoomEvent, names, room};

use crate::config::Config;
use crate::metrics::Metrics;
use crate::rooms::{Error, Refusal, RelayLease, Rooms};

/// The lease of a relay. A relay that does not renew it in time loses the room to another replica.
const LEASE: Duration = Duration::from_secs(5);
/// The number of records that are read and sent together.
const PAGE: u64 = 500;
/// The pause after a failed attempt.
const RETRY: Duration = Duration::from_millis(500);
/// The pause while the queue of the producer is full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(20);

/// The relay of all rooms of one replica.
pub(crate) struct Relay {
    /// The name under which the replica takes leases.
    pub(crate) name: String,
    pub(crate) client: Client,
    pub(crate) rooms: Rooms,
    pub(crate) config: Arc<Config>,
    pub(crate) metrics: Metrics,
    pub(crate) producer: Producer,
}

/// Why a page of records was not relayed.
#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error(transparent)]
    Room(#[from] Error),
    #[error(transparent)]
    Feed(#[from] tutti_feed::Error),
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
}

impl Relay {
    /// Relays the records of a room that Kafka does not have yet, unless another replica has the lease.
    pub(crate) async fn catch_up(&self, room: &str) {
        let mut failures = 0u32;
        loop {
            match self.page(room).await {
                Ok(false) | Err(RelayError::Room(Error::Refused(_))) => return,
                Ok(true) => failures = 0,
                Err(error) => {
                    self.metrics.relay_errors.inc();
                    failures += 1;
                    if failures.is_power_of_two() {
                        warn!(room, %error, failures, "changes of the room cannot be relayed to Kafka; trying again");
                    }
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Relays one page of records. Returns whether there may be more.
    async fn page(&self, room: &str) -> Result<bool, RelayError> {
        let RelayLease { epoch, relayed, seq } = self.lease(room, None).await?;
        if seq <= relayed {
            return Ok(false);
        }
        let from = Position { epoch, seq: relayed + 1, time_us: 0 };
        let page = read_log(&self.client, &names::room_feed(room), Some(from), PAGE).await?;
        let page: Vec<Record> = page.into_iter().filter(|r| r.position.epoch == epoch).collect();
        let (Some(first), Some(last)) = (page.first(), page.last()) else { return Ok(false) };
        if first.position.seq > relayed + 1 {
            let lost = first.position.seq - relayed - 1;
            self.metrics.relay_gaps.inc_by(lost);
            warn!(
                room,
                from = relayed + 1,
                lost,
                "Redis has lost changes of the room before they were relayed; Kafka does not get them"
            );
        }
        // One session for the page: if it fails, none of the page's records is written behind a lost one.
        let session = self.producer.session()?;
        let mut keep = interval_at(Instant::now() + LEASE / 4, LEASE / 4);
        let sending = self.send(room, &page, &session);
        tokio::pin!(sending);
        let sent = loop {
            tokio::select! {
                sent = &mut sending => break sent.inspect_err(|_| self.producer.end(&session))?,
                // Kafka may be away for long. The lease is kept meanwhile, because another replica would send the same.
                _ = keep.tick() => drop(self.lease(room, None).await?),
            }
        };
        self.metrics.relayed.inc_by(sent);
        let RelayLease { relayed, seq, .. } = self.lease(room, Some(last.position)).await?;
        Ok(seq > relayed)
    }

    /// Sends a page in order, and waits until Kafka has acknowledged all of it. Returns the number of records sent.
    async fn send(&self, room: &str, page: &[Record], session: &Session) -> Result<u64, KafkaError> {
        let mut deliveries = Vec::with_capacity(page.len());
        for record in page {
            let Some((value, kind)) = self.value(room, record) else { continue };
            let Position { epoch, seq, time_us } = record.position;
            let headers: [(&str, &str); 5] = [
                ("content-type", kind),
                ("tutti-room", room),
                ("tutti-epoch", &epoch.to_string()),
                ("tutti-version", &seq.to_string()),
                ("tutti-time-us", &time_us.to_string()),
            ];
            let record = ProducerRecord {
                topic: &self.config.topic,
                key: Some(room.as_bytes()),
                value: Some(&value),
                timestamp_ms: Some((time_us / 1000) as i64),
                headers: &headers,
                ..ProducerRecord::default()
            };
            deliveries.push(loop {
                match session.send(&record) {
                    Ok(delivery) => break delivery,
                    Err(error) if error.is_queue_full() => sleep(QUEUE_FULL_PAUSE).await,
                    Err(error) => return Err(error),
                }
            });
        }
        let sent = deliveries.len() as u64;
        for delivery in deliveries {
            delivery.acknowledged().await?;
        }
        Ok(sent)
    }

    /// Returns the value and content type of a record on Kafka, or `None` if Kafka does not get it: a pulse, or a record that
    /// this version cannot read.
    fn value(&self, room: &str, record: &Record) -> Option<(Vec<u8>, &'static str)> {
        let Ok(event) = RoomEvent::decode(record.payload.clone()) else {
            self.metrics.relay_gaps.inc();
            let seq = record.position.seq;
            warn!(room, seq, "this version cannot read a change of the room; Kafka does not get it");
            return None;
        };
        let Position { epoch, seq, time_us } = record.position;
        let json = room::event_to_json(room, epoch, seq, time_us, &event)?;
        Some(match self.config.format {
            Format::Json => (json.to_string().into_bytes(), "application/json"),
            Format::Protobuf => (record.payload.to_vec(), "application/protobuf"),
        })
    }

    /// Takes or keeps the lease, and notes what Kafka has acknowledged.
    async fn lease(&self, room: &str, acknowledged: Option<Position>) -> Result<RelayLease, Error> {
        let lease_us = LEASE.as_micros() as u64;
        match self.rooms.relay(room, &self.name, lease_us, acknowledged).await {
            // Another replica took the lease while records were under way. The script has noted the acknowledgement all the
            // same, so there is nothing more to do here.
            Err(Error::Refused(Refusal::Held)) if acknowledged.is_some() => {
                Ok(RelayLease { epoch: 0, relayed: 0, seq: 0 })
            }
            answer => answer,
        }
    }
}
