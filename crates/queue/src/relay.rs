//! Copies the changes of one room to Kafka, in order, and moves the room's position only after
//! Kafka's acknowledgement.
//!
//! One replica at a time has the lease. One that lost it without noticing does no harm: consumers
//! drop what they have by (room, epoch, version, time): a failover that lost changes gives their
//! versions out again, at other times.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prost::Message as _;
use tokio::time::{Instant, interval_at, sleep};
use tracing::warn;
use tutti_feed::{Client, Position, Record, read_log};
use tutti_model::{Format, RoomEvent, names, room};

use crate::config::Config;
use crate::kafka::{self, KafkaError, Producer};
use crate::metrics::Metrics;
use crate::rooms::{Error, Refusal, RelayLease, Rooms};

/// A relay that is not heard of for so long is taken for dead.
const LEASE: Duration = Duration::from_secs(5);
/// Records read and sent together.
const PAGE: u64 = 500;
/// Between attempts at something that failed.
const RETRY: Duration = Duration::from_millis(500);

/// What the relays of all rooms share.
pub(crate) struct Relay {
    pub(crate) name: String,
    pub(crate) client: Client,
    pub(crate) rooms: Rooms,
    pub(crate) config: Arc<Config>,
    pub(crate) metrics: Metrics,
    /// Made when it is needed, and anew when it failed.
    pub(crate) producer: Mutex<Option<Arc<Producer>>>,
}

/// Why a page was not relayed.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Room(#[from] Error),
    #[error(transparent)]
    Feed(#[from] tutti_feed::Error),
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
}

impl Relay {
    /// Relays what a room has that Kafka has not, if no other relay is at it.
    pub(crate) async fn catch_up(&self, room: &str) {
        let mut failures = 0u32;
        loop {
            match self.page(room).await {
                Ok(false) | Err(Failed::Room(Error::Refused(_))) => return,
                Ok(true) => failures = 0,
                Err(error) => {
                    self.metrics.relay_errors.inc();
                    failures += 1;
                    if failures.is_power_of_two() {
                        warn!(room, %error, failures, "relaying failed; trying again");
                    }
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Relays a page. Whether there may be more.
    async fn page(&self, room: &str) -> Result<bool, Failed> {
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
            warn!(room, from = relayed + 1, lost, "changes are missing in Redis; Kafka will not have them");
        }
        let producer = self.producer()?;
        let mut keep = interval_at(Instant::now() + LEASE / 4, LEASE / 4);
        let sending = self.send(room, &page, &producer);
        tokio::pin!(sending);
        let sent = loop {
            tokio::select! {
                sent = &mut sending => break sent.inspect_err(|_| self.give_up(&producer))?,
                // Kafka may be away for long; another relay would only send the same.
                _ = keep.tick() => drop(self.lease(room, None).await?),
            }
        };
        self.metrics.relayed.inc_by(sent);
        let RelayLease { relayed, seq, .. } = self.lease(room, Some(last.position)).await?;
        Ok(seq > relayed)
    }

    fn producer(&self) -> Result<Arc<Producer>, KafkaError> {
        let mut held = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = &*held {
            return Ok(producer.clone());
        }
        Ok(held.insert(Arc::new(Producer::new(&self.config.kafka)?)).clone())
    }

    /// It may be of no use any more, as after a fatal error.
    fn give_up(&self, producer: &Arc<Producer>) {
        let mut held = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().is_some_and(|held| Arc::ptr_eq(held, producer)) {
            *held = None;
        }
    }

    /// Sends a page in order, and waits until Kafka has all of it. How many it was.
    async fn send(&self, room: &str, page: &[Record], producer: &Producer) -> Result<u64, KafkaError> {
        let mut deliveries = Vec::with_capacity(page.len());
        for record in page {
            let Some((value, kind)) = self.value(room, record) else { continue };
            let Position { epoch, seq, time_us } = record.position;
            let headers = [
                ("content-type", kind.to_owned()),
                ("tutti-room", room.to_owned()),
                ("tutti-epoch", epoch.to_string()),
                ("tutti-version", seq.to_string()),
                ("tutti-time-us", time_us.to_string()),
            ];
            let record = kafka::Record {
                topic: &self.config.topic,
                key: room,
                value: &value,
                timestamp_ms: (time_us / 1000) as i64,
                headers: &headers,
            };
            loop {
                if let Some(delivery) = producer.send(&record)? {
                    deliveries.push(delivery);
                    break;
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
        let sent = deliveries.len() as u64;
        for delivery in deliveries {
            delivery.acknowledged().await?;
        }
        Ok(sent)
    }

    /// What Kafka gets of a record: nothing of a pulse.
    fn value(&self, room: &str, record: &Record) -> Option<(Vec<u8>, &'static str)> {
        let Ok(event) = RoomEvent::decode(record.payload.clone()) else {
            self.metrics.relay_gaps.inc();
            let seq = record.position.seq;
            warn!(room, seq, "a change that this version cannot read; Kafka will not have it");
            return None;
        };
        let Position { epoch, seq, time_us } = record.position;
        let json = room::event_to_json(room, epoch, seq, time_us, &event)?;
        Some(match self.config.format {
            Format::Json => (json.to_string().into_bytes(), "application/json"),
            Format::Protobuf => (record.payload.to_vec(), "application/protobuf"),
        })
    }

    async fn lease(&self, room: &str, acknowledged: Option<Position>) -> Result<RelayLease, Error> {
        let lease_us = LEASE.as_micros() as u64;
        match self.rooms.relay(room, &self.name, lease_us, acknowledged).await {
            // Another took it while we had records under way: what Kafka has is noted all the same.
            Err(Error::Refused(Refusal::Held)) if acknowledged.is_some() => {
                Ok(RelayLease { epoch: 0, relayed: 0, seq: 0 })
            }
            answer => answer,
        }
    }
}
