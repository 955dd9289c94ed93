//! An idempotent producer that recovers after a fatal error.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _};
use tokio::runtime::Handle;

use crate::error::{ConfigError, Error};
use crate::settings::ClientSettings;

/// KiB of records that a producer holds while Kafka has not acknowledged them.
const QUEUE_KIB: &str = "65536";

/// What tells one producer from another.
#[derive(Clone, Copy, Debug)]
pub struct ProducerOptions<'a> {
    /// Name under which brokers log the client and apply quotas to it.
    pub client_id: &'a str,
    /// Time that Kafka may take to acknowledge a record. After it the record is dropped and its delivery fails.
    /// `None`: the record is tried for ever.
    pub delivery_timeout: Option<Duration>,
    /// How long a record waits for others that go in the same request.
    pub linger: Duration,
}

/// A record to write.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProducerRecord<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition. `None`: a hash of the key chooses it.
    pub partition: Option<i32>,
    /// The key. `None` is null.
    pub key: Option<&'a [u8]>,
    /// The value. `None` is null: a tombstone.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since 1970. `None` is the time of sending.
    pub timestamp_ms: Option<i64>,
    /// Names and values of headers.
    pub headers: &'a [(&'a str, &'a str)],
}

impl ProducerRecord<'_> {
    /// Copies the headers for librdkafka.
    pub(crate) fn owned_headers(&self) -> Option<OwnedHeaders> {
        if self.headers.is_empty() {
            return None;
        }
        let mut headers = OwnedHeaders::new_with_capacity(self.headers.len());
        for (key, value) in self.headers {
            headers = headers.insert(Header { key, value: Some(*value) });
        }
        Some(headers)
    }
}

/// Writes to Kafka. Each record is written once, and in order within a [`Session`]. Clones share one client.
#[derive(Clone)]
pub struct Producer(Arc<Inner>);

struct Inner {
    config: ClientConfig,
    /// The client in use. It is made when it is needed, and replaced after it has failed for good.
    current: Mutex<Option<Session>>,
}

/// One client of a [`Producer`], from its start to its fatal error. Whoever needs records in order sends all of them
/// by one session: when a session fails, all its records that are not acknowledged fail too.
#[derive(Clone)]
pub struct Session(Arc<Client>);

/// A client of librdkafka. `None` only while it is dropped.
struct Client(Option<FutureProducer>);

/// The outcome of one record, which is not known yet.
#[must_use = "a delivery that nobody awaits may fail unnoticed"]
pub struct Delivery(DeliveryFuture);

impl Producer {
    /// Makes a producer whose client starts at once.
    ///
    /// # Errors
    /// If librdkafka refuses the configuration.
    pub fn start(settings: &ClientSettings, options: &ProducerOptions<'_>) -> Result<Self, ConfigError> {
        let producer = Self::lazy(settings, options)?;
        let session = producer.0.new_session()?;
        *producer.0.current() = Some(session);
        Ok(producer)
    }

    /// Makes a producer whose client starts with the first record. A client has threads that are never quite idle.
    ///
    /// # Errors
    /// If librdkafka refuses the configuration.
    pub fn lazy(settings: &ClientSettings, options: &ProducerOptions<'_>) -> Result<Self, ConfigError> {
        // librdkafka takes a delivery timeout of 0 for none.
        let delivery_timeout = options.delivery_timeout.map_or(0, |timeout| timeout.as_millis());
        let mut config = settings.client_config(
            options.client_id,
            &[
                ("enable.idempotence", "true"),
                ("acks", "all"),
                ("message.timeout.ms", &delivery_timeout.to_string()),
                ("linger.ms", &options.linger.as_millis().to_string()),
                ("queue.buffering.max.kbytes", QUEUE_KIB),
            ],
        );
        config.create_native_config()?;
        for key in settings.consumers_only() {
            config.remove(key);
        }
        Ok(Self(Arc::new(Inner { config, current: Mutex::default() })))
    }

    /// Returns the session in use, or a new one if that has met a fatal error.
    ///
    /// # Errors
    /// If librdkafka cannot make another client.
    pub fn session(&self) -> Result<Session, Error> {
        let mut current = self.0.current();
        match &*current {
            Some(session) if session.0.is_usable() => Ok(session.clone()),
            _ => Ok(current.insert(self.0.new_session()?).clone()),
        }
    }

    /// Ends a session that is of no use any more: its records that are not acknowledged are dropped, and the next
    /// [`Producer::session`] is a new one. Does nothing if another session is already in use.
    pub fn end(&self, session: &Session) {
        let mut current = self.0.current();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(&current.0, &session.0)) {
            *current = None;
        }
    }

    /// Writes one record and waits for Kafka's acknowledgement, at most as long as the delivery timeout.
    ///
    /// # Errors
    /// If the record is not acknowledged, or the queue is full.
    pub async fn send(&self, record: &ProducerRecord<'_>) -> Result<(), Error> {
        self.session()?.send(record)?.acknowledged().await
    }
}

impl Inner {
    fn current(&self) -> MutexGuard<'_, Option<Session>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_session(&self) -> Result<Session, KafkaError> {
        Ok(Session(Arc::new(Client(Some(self.config.create()?)))))
    }
}

impl Session {
    /// Queues a record without waiting.
    ///
    /// # Errors
    /// If librdkafka refuses the record, such as one that is too large, or if the queue is full
    /// ([`Error::is_queue_full`]). Records that were sent before are not affected.
    pub fn send(&self, record: &ProducerRecord<'_>) -> Result<Delivery, Error> {
        let headers = record.owned_headers();
        let record: FutureRecord<'_, [u8], [u8]> = FutureRecord {
            topic: record.topic,
            partition: record.partition,
            payload: record.value,
            key: record.key,
            timestamp: record.timestamp_ms,
            headers,
        };
        match self.0.producer().send_result(record) {
            Ok(delivery) => Ok(Delivery(delivery)),
            Err((error, _)) => Err(error.into()),
        }
    }
}

impl Client {
    fn producer(&self) -> &FutureProducer {
        self.0.as_ref().expect("the client is there until it is dropped")
    }

    fn is_usable(&self) -> bool {
        self.producer().client().fatal_error().is_none()
    }
}

impl Drop for Client {
    /// Drops the client on a thread for blocking calls: it joins its own thread, and flushes for up to 500 ms.
    fn drop(&mut self) {
        let producer = self.0.take();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn_blocking(move || drop(producer));
        }
    }
}

impl Delivery {
    /// Waits for Kafka's acknowledgement.
    ///
    /// # Errors
    /// If the record will not be acknowledged.
    pub async fn acknowledged(self) -> Result<(), Error> {
        match self.0.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) => Err(error.into()),
            Err(_) => Err(KafkaError::Canceled.into()),
        }
    }
}
