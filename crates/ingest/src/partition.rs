//! One partition's way: from where Redis stands, *poll, decode, append, store the offset*.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt as _;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::{debug, info, warn};
use tutti_feed::{Client, Error as FeedError, Replicas};

use crate::batch::Batch;
use crate::config::{Config, Route, Start};
use crate::filer::Filer;
use crate::kafka::{Granted, Group, KafkaError, Records};
use crate::metrics::{Metrics, Topic};
use crate::rejected::{Invalidated, Rejected};
use crate::sink::{Sink, Stored};

/// A partition that brought nothing for so long appends an empty record, to move the feed's time.
const QUIET: Duration = Duration::from_secs(1);
/// A partition that brought nothing for so long is asked for its end, which only its leader knows.
const SILENT: Duration = Duration::from_secs(3);
/// Between attempts at something that failed.
const RETRY: Duration = Duration::from_millis(500);
/// While records are held back, that is noted again each time this has passed.
const NOTED_AGAIN: Duration = Duration::from_secs(5);
/// A position beyond the partition's end is looked at so often before it is believed: a broker
/// that just restarted may not know its end yet.
const LOOKS_BEYOND_END: u32 = 4;

/// What the partitions of a route share.
pub(crate) struct Shared {
    pub(crate) cluster: String,
    pub(crate) group: Arc<Group>,
    pub(crate) client: Client,
    pub(crate) config: Arc<Config>,
    pub(crate) route: Route,
    pub(crate) metrics: Metrics,
    pub(crate) rejected: Rejected,
    /// How often Redis has been connected to.
    pub(crate) connection_epoch: watch::Receiver<u64>,
    pub(crate) replicas: Replicas,
    pub(crate) began: Instant,
    /// For notifications: of each bucket of the mailboxes.
    pub(crate) filers: Arc<[Filer]>,
}

impl Shared {
    /// A partition's name in Redis.
    pub(crate) fn source(&self, partition: i32) -> String {
        format!("{}/{}/{partition}", self.cluster, self.route.topic)
    }

    /// When to append next after this: the partitions do so at the same moments, for that costs less.
    fn beat(&self, linger: Duration, last: Instant) -> Instant {
        let over = (last - self.began).as_micros() % linger.as_micros();
        last + linger - Duration::from_micros(over as u64)
    }
}

/// One partition while it is ours.
pub(crate) struct Partition<S> {
    shared: Arc<Shared>,
    granted: Granted,
    source: String,
    sink: S,
    /// How far back a partition begins that Redis does not know, if it begins at what is that old.
    reach: Duration,
    topic: Topic,
}

/// Where to go on, and what is to be said of it to the feed.
struct Place {
    position: i64,
    /// Redis did not know the source when it was asked.
    fresh: bool,
    clock: FeedClock,
}

/// What was last noted of records that are held back.
#[derive(Default)]
struct Noted {
    records: u64,
    at: Option<Instant>,
}

/// The feed's time between two records, by our own monotonic clock.
#[derive(Clone, Copy)]
struct FeedClock {
    time_us: u64,
    read_at: Instant,
}

impl FeedClock {
    fn at(time_us: u64) -> Self {
        Self { time_us, read_at: Instant::now() }
    }

    fn now_ms(self) -> i64 {
        (self.time_us / 1000) as i64 + self.read_at.elapsed().as_millis() as i64
    }
}

impl<S: Sink> Partition<S> {
    pub(crate) fn new(shared: Arc<Shared>, granted: Granted, sink: S, reach: Duration) -> Self {
        let topic = Topic { topic: shared.route.topic.clone() };
        Self { source: shared.source(granted.partition), granted, sink, reach, topic, shared }
    }

    /// Runs until the partition is taken back.
    pub(crate) async fn run(self) {
        let revoked = self.granted.revoked.clone();
        tokio::select! {
            () = revoked.cancelled() => {}
            () = self.work() => {}
        }
    }

    async fn work(&self) {
        loop {
            if let Err(error) = self.fetch_from_redis_position().await {
                warn!(source = self.source, %error, "starting again");
                sleep(RETRY).await;
            }
            if let Err(error) = self.shared.group.stop_fetching(&self.granted) {
                warn!(source = self.source, %error, "stopping to fetch");
            }
        }
    }

    /// Carries records until Redis refuses one, which means that it lost something.
    async fn fetch_from_redis_position(&self) -> Result<(), WorkError> {
        let place = self.place().await?;
        let queue = self.shared.group.queue(&self.granted)?;
        self.shared.group.start_fetching(&self.granted, place.position)?;
        info!(
            source = self.source,
            to = self.sink.name(),
            offset = place.position,
            fresh = place.fresh,
            "fetching"
        );
        let _reading = Reading::new(self.shared.metrics.partitions.get_or_create_owned(&self.topic));
        self.carry(&mut queue.records(), place).await
    }

    /// Asks Redis where the partition stands, and compares that with what Kafka still has.
    async fn place(&self) -> Result<Place, WorkError> {
        let partition = self.granted.partition;
        for look in 1.. {
            let clock = FeedClock::at(tutti_feed::time_us(&self.shared.client).await?);
            let held = self.sink.position().await?;
            let (start, end) = self.shared.group.watermarks(partition).await?;
            let Some(stood) = held else {
                let position = match self.shared.route.start {
                    Start::Beginning => start,
                    Start::End => end,
                    Start::LogAge => {
                        let since = clock.now_ms() - self.reach.as_millis() as i64;
                        self.shared.group.offset_at(partition, since, end).await?
                    }
                };
                return Ok(Place { position, fresh: true, clock });
            };
            let reason = if stood.newest < start {
                "kafka_retention"
            } else if stood.newest > end {
                if look < LOOKS_BEYOND_END {
                    sleep(QUIET).await;
                    continue;
                }
                "topic_made_anew"
            } else {
                return Ok(Place { position: stood.resume.max(start), fresh: false, clock });
            };
            self.announce_gap(stood.newest, start, reason).await?;
        }
        unreachable!("the loop ends by returning")
    }

    /// Kafka no longer has what Redis expects next: says so, in the feed itself.
    async fn announce_gap(&self, from: i64, to: i64, reason: &str) -> Result<(), FeedError> {
        warn!(source = self.source, from, to, reason, "records are missing in Kafka; clients get a reset");
        if self.sink.announce_gap(from, to, reason).await? {
            self.shared.metrics.gaps.get_or_create(&self.topic).inc();
        }
        Ok(())
    }

    async fn carry(&self, records: &mut Records<'_>, place: Place) -> Result<(), WorkError> {
        let Place { position, mut fresh, mut clock } = place;
        let mut last_append = Instant::now();
        let mut last_proof = Instant::now();
        let mut noted = Noted::default();
        let mut batch = self.gather(records, position, clock, last_append).await?;
        loop {
            if batch.records() > 0 {
                last_proof = Instant::now();
            } else if last_proof.elapsed() >= SILENT {
                // Quiet, or dead? An empty record says that nothing came, not that nobody looked.
                self.shared.group.watermarks(self.granted.partition).await?;
                last_proof = Instant::now();
            }
            last_append = Instant::now();
            let (from, to) = (batch.from(), batch.to());
            let is_quiet = batch.records() == 0 && !fresh;
            let held_back = if is_quiet { self.shared.group.held_back(&self.granted, to) } else { 0 };
            self.note_held_back(held_back, &mut noted, clock).await;
            if held_back > 0 {
                // An empty record would say that nothing came. Without one, a Redis that lost something is noticed here.
                if matches!(self.sink.stands_at(to).await, Ok(false)) {
                    self.warn_of_loss(from);
                    return Ok(());
                }
                batch = self.gather(records, to, clock, last_append).await?;
                continue;
            }
            // While Redis has one, the next is gathered.
            let (appended, next) =
                tokio::join!(self.append(batch, fresh), self.gather(records, to, clock, last_append));
            let Some((position, at)) = appended else {
                self.warn_of_loss(from);
                return Ok(());
            };
            fresh = false;
            if let Some(time_us) = at {
                clock = FeedClock::at(time_us);
            }
            self.shared.group.store_offset(self.granted.partition, position);
            batch = next?;
            if position > to {
                let there = batch.skip_to(position) as u64;
                self.shared.metrics.duplicates.get_or_create(&self.topic).inc_by(there);
            }
        }
    }

    fn warn_of_loss(&self, from: i64) {
        warn!(source = self.source, from, "Redis may have lost records; going back to where it stands");
    }

    /// Notes in Redis how many records are held back, if that is to be said now.
    async fn note_held_back(&self, records: u64, noted: &mut Noted, clock: FeedClock) {
        let is_due = noted.at.is_none_or(|at| at.elapsed() >= NOTED_AGAIN);
        if records == noted.records && (records == 0 || !is_due) {
            return;
        }
        match self.sink.note_held_back(records, clock.now_ms()).await {
            Ok(()) => *noted = Noted { records, at: Some(Instant::now()) },
            Err(error) => debug!(source = self.source, %error, "what is held back is noted later"),
        }
    }

    /// The next batch: what comes until it is full or its time is over; empty after a quiet time.
    async fn gather(
        &self,
        records: &mut Records<'_>,
        position: i64,
        clock: FeedClock,
        last_append: Instant,
    ) -> Result<Batch<S::Part>, KafkaError> {
        let mut batch = Batch::new(position);
        let mut invalid = Vec::new();
        let quiet_until = last_append + QUIET;
        let lingers_until = self.shared.beat(S::LINGER, last_append);
        let mut now_ms = clock.now_ms();
        while !batch.is_full() {
            let message = match records.next().now_or_never() {
                Some(message) => message?,
                None if batch.records() == 0 => match timeout_at(quiet_until, records.next()).await {
                    Ok(message) => {
                        now_ms = clock.now_ms();
                        message?
                    }
                    Err(_) => break,
                },
                // Not woken by each that comes meanwhile.
                None if Instant::now() < lingers_until => {
                    sleep_until(lingers_until).await;
                    now_ms = clock.now_ms();
                    continue;
                }
                None => break,
            };
            let record = message.raw();
            if record.offset < position {
                self.shared.metrics.duplicates.get_or_create(&self.topic).inc();
                continue;
            }
            let part = match self.sink.judge(record, now_ms) {
                Ok(part) => {
                    if part.is_none() {
                        self.shared.metrics.stale.get_or_create(&self.topic).inc();
                    }
                    part
                }
                Err(error) => {
                    invalid.push(Invalidated::new(record, error));
                    None
                }
            };
            batch.push(&record, part);
        }
        self.shared.rejected.reject(self.granted.partition, invalid).await;
        Ok(batch)
    }

    /// Appends a batch, for as long as Redis needs; meanwhile Kafka is the buffer. Says where the
    /// partition stands after it, and the feed's time if it wrote; `None` if Redis refused.
    async fn append(&self, mut batch: Batch<S::Part>, fresh: bool) -> Option<(i64, Option<u64>)> {
        let metrics = &self.shared.metrics;
        let mut failures = 0u32;
        loop {
            match self.sink.store(&batch, fresh).await {
                Ok(Stored::At(time_us)) => {
                    metrics.applied.get_or_create(&self.topic).inc_by(batch.records() as u64);
                    if let Some(time_us) = time_us {
                        batch.ages((time_us / 1000) as i64).for_each(|age| metrics.delay.observe(age));
                    }
                    return Some((batch.to(), time_us));
                }
                Ok(Stored::Duplicate(position)) => {
                    let there = batch.skip_to(position) as u64;
                    // Our own attempt that was not answered is no duplicate.
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
                        warn!(source = self.source, %error, failures, "append failed; trying again");
                    }
                    let pause = RETRY.min(Duration::from_millis(20 << failures.min(5)));
                    sleep_until(Instant::now() + pause).await;
                }
            }
        }
    }
}

/// Counts a partition while it is read, however that ends.
struct Reading(Gauge);

impl Reading {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What makes a partition start again from Redis's position.
#[derive(Debug, thiserror::Error)]
enum WorkError {
    #[error(transparent)]
    Feed(#[from] FeedError),
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
}
