//! Follows the feeds of the live map, folds their records into the map's state, and publishes the state step by step.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::broadcast;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{info, warn};
use tutti_feed::{Event, Head, Position, connect, follow, wait_for_agreement};
use tutti_model::ResetReason;
use tutti_model::names;
use tutti_service::{ExposeSecret as _, Latch, SecretString};

use crate::following::status::{Liveness, Status};
use crate::map::settings::MapSettings;
use crate::map::state::MapState;
use crate::map::tick::{Step, Tick};
use crate::metrics::Metrics;

/// Number of steps that may wait for a worker. A worker that is further behind serves its clients by replays.
pub(crate) const TICKS_WAITING: usize = 256;

/// Maximum number of events applied in a row before other work has its turn, so that a long log does not delay a
/// tick.
const EVENTS_A_TURN: usize = 256;

/// Positions of the heads of all feeds in Redis. `None` for a feed that has no records.
type Heads = Vec<Option<Position>>;

/// The task that follows the feeds of the live map. Each edge has one; its ticks go to all workers.
pub(crate) struct MapFollower {
    settings: MapSettings,
    redis_url: SecretString,
    allow_eviction: bool,
    metrics: Metrics,
    ticks: broadcast::Sender<Arc<Tick>>,
    /// Keeps the edge from being ready until the first tick is published.
    latch: Option<Latch>,
    map: MapState,
    /// Whether any feed has had a record since this edge started.
    used: bool,
    /// Whether all records up to the heads of the first poll have been applied. Nothing is published before, because
    /// the map would not be complete.
    caught_up: bool,
    /// Heads of the feeds at the last poll of Redis in this history.
    heads: Option<Heads>,
    /// Number of polls of the heads.
    polls: u64,
    liveness: Liveness,
    status: Status,
    /// Number of resets of this edge. What clients were shown under another generation is void.
    generation: u64,
    /// Why this generation began.
    reset_reason: ResetReason,
    /// The step that was published last.
    published: Option<Arc<Tick>>,
    /// Whether something has changed since the last step was published.
    dirty: bool,
    last_tick: Instant,
}

/// What the follower does after an event.
enum Next {
    GoOn,
    /// The feed has another history: read the logs from their beginning again.
    Restart(ResetReason),
}

impl MapFollower {
    pub(crate) fn new(
        settings: MapSettings,
        redis_url: SecretString,
        allow_eviction: bool,
        metrics: Metrics,
        ticks: broadcast::Sender<Arc<Tick>>,
        latch: Latch,
    ) -> Self {
        let shards = settings.locations.shards as usize;
        Self {
            map: empty_map(&settings),
            settings,
            redis_url,
            allow_eviction,
            metrics,
            ticks,
            latch: Some(latch),
            used: false,
            caught_up: false,
            heads: None,
            polls: 0,
            liveness: Liveness::new(shards),
            status: Status::Stale { since_ms: None },
            generation: 0,
            reset_reason: ResetReason::Start,
            published: None,
            dirty: false,
            last_tick: Instant::now(),
        }
    }

    /// Follows the feeds. Does not return unless there is an error: after a reset of a feed the map is read from the
    /// logs again.
    ///
    /// # Errors
    /// Returns an error if the URL of Redis is not valid, if Redis is too old or evicts keys, or if the services that
    /// share it agreed on other settings.
    pub(crate) async fn run(mut self) -> Result<(), tutti_feed::Error> {
        loop {
            self.agree().await?;
            let reason = self.follow_until_reset().await?;
            warn!(%reason, "the live map is read from the logs again; its clients receive a reset");
            // The last step of this generation is stale: nothing is known of what Redis has now.
            self.liveness = Liveness::new(self.settings.locations.shards as usize);
            if self.caught_up {
                self.publish();
            }
            self.generation += 1;
            self.reset_reason = reason;
            self.map = empty_map(&self.settings);
            self.caught_up = false;
            self.heads = None;
        }
    }

    /// Waits for Redis, and compares the settings that all services must share. Writes the settings to a Redis that
    /// came back empty.
    ///
    /// # Errors
    /// Returns an error if the URL of Redis is not valid, if Redis is too old or evicts keys, or if the services that
    /// share it agreed on other settings.
    async fn agree(&self) -> Result<(), tutti_feed::Error> {
        let redis = connect(self.redis_url.expose_secret())?;
        // A Redis that was set to evict keys only after this edge started does not stop the edge and its streams.
        let allow_eviction = self.allow_eviction || self.generation > 0;
        let waits = |why: &str| {
            if let Some(latch) = &self.latch {
                latch.because(why);
            }
        };
        let agreement = self.settings.locations.agreement();
        wait_for_agreement(&redis.client, "locations", &agreement, allow_eviction, waits).await
    }

    /// Follows the feeds, and publishes what they bring, until a feed must be read again. Returns the reason.
    ///
    /// # Errors
    /// Returns an error if the URL of Redis is not valid.
    async fn follow_until_reset(&mut self) -> Result<ResetReason, tutti_feed::Error> {
        let names: Vec<String> = (0..self.settings.locations.shards).map(names::locations_feed).collect();
        let url = self.redis_url.expose_secret();
        let mut following = follow(url, &names, self.metrics.follow.clone())?;
        let mut watch = interval(Duration::from_secs(1));
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.last_tick + self.settings.tick;
            tokio::select! {
                events = following.next_few(EVENTS_A_TURN) => {
                    if events.is_empty() {
                        return Ok(ResetReason::FollowerEnded);
                    }
                    if let Next::Restart(reason) = self.take(events) {
                        return Ok(reason);
                    }
                }
                () = sleep_until(due), if self.dirty && self.caught_up => self.publish(),
                _ = watch.tick() => self.watch_status(),
            }
        }
    }

    /// Applies events up to the first reset. Events after a reset are dropped, because their records are read again.
    fn take(&mut self, events: Vec<Event>) -> Next {
        for event in events {
            match event {
                Event::Heads(heads) => {
                    // A map is complete only with all of its shards.
                    let Some(heads) = heads.into_iter().map(Head::known).collect::<Option<Heads>>() else {
                        continue;
                    };
                    self.used |= heads.iter().any(Option::is_some);
                    self.heads = Some(heads);
                    self.polls += 1;
                    self.metrics.devices.set(self.map.view().alive().count() as i64);
                    // A tick carries the heads to the clients that wait for a poll.
                    self.dirty = true;
                }
                Event::HeldBack { feed, records } => self.liveness.hold_back(feed, records),
                Event::Reset { reason, .. } => return Next::Restart(reason),
                Event::Record { feed, record } => {
                    let applied = self.map.apply(feed, &record);
                    let Position { seq, time_us, .. } = record.position;
                    self.liveness.hear(feed, Some((time_us / 1000) as i64), Instant::now());
                    self.dirty = true;
                    if self.caught_up {
                        self.metrics.record_age.observe(age_of(time_us));
                    }
                    if applied.unreadable {
                        self.metrics.cannot_read(&names::locations_feed(feed as u32), seq);
                    }
                    if applied.gap && self.caught_up {
                        // All edges see the gap at the same record, so the state stays. A reset tells
                        // clients that something is missing.
                        self.generation += 1;
                        self.reset_reason = ResetReason::Gap;
                        info!(feed, "records are missing in Kafka; clients of the live map receive a reset");
                    }
                }
            }
        }
        if !self.caught_up && self.heads.as_ref().is_some_and(|heads| self.map.view().reaches(heads)) {
            self.caught_up = true;
            self.warn_of_short_logs();
            info!(devices = self.map.view().alive().count(), "the live map has caught up");
        }
        Next::GoOn
    }

    /// Logs a warning for each log that does not reach back as far as a fix may be on the map: a log that was cut by
    /// its length or bytes may lack devices that are alive.
    fn warn_of_short_logs(&self) {
        for (feed, whole_in) in self.map.view().incomplete() {
            warn!(
                feed,
                ?whole_in,
                "the log of the live map is too short: devices may be missing until they report again; \
                 raise locations.log_max_entries or locations.log_max_bytes of ingest"
            );
        }
    }

    /// Determines the status of the map, and marks a change of it to be published. The map is stale if a feed that
    /// has records brings none, or does not bring all of them.
    fn watch_status(&mut self) {
        let status = self.liveness.status(Instant::now());
        // A map that has never had a record is not reported as stale: nothing is missing.
        let unused = !self.used && self.heads.is_some();
        self.metrics.stale.set(i64::from(status != Status::Live && !unused));
        if status != self.status {
            info!(?status, "the status of the live map changed");
            self.status = status;
            self.dirty = true;
        }
    }

    /// Publishes the state as the next step, and opens the latch if this is the first one.
    fn publish(&mut self) {
        self.watch_status();
        let before = self.published.as_deref();
        // A step over a longer time than tombstones are kept for may lack removals.
        if before.is_some_and(|b| b.generation == self.generation && self.map.view().forgot_since(&b.cursor))
        {
            self.generation += 1;
            self.reset_reason = ResetReason::TooOld;
        }
        let step = Step {
            no: before.map_or(0, |b| b.no) + 1,
            generation: self.generation,
            reset_reason: self.reset_reason,
            status: self.status,
            status_changed: before.is_some_and(|b| b.status != self.status),
            heads: self.heads.clone().unwrap_or_default(),
            polls: self.polls,
        };
        let tick = Arc::new(Tick::new(&mut self.map, step));
        self.published = Some(tick.clone());
        self.dirty = false;
        self.last_tick = Instant::now();
        self.metrics.ticks.inc();
        // Sending fails only if there is no receiver: no worker has started yet.
        let _ = self.ticks.send(tick);
        if let Some(latch) = self.latch.take() {
            latch.open();
        }
    }
}

/// Returns a map without entries.
fn empty_map(settings: &MapSettings) -> MapState {
    let locations = &settings.locations;
    MapState::new(locations.shards as usize, locations.stale_after, locations.log_age)
}

/// Returns the age in seconds of a record with this time, by the clock of this machine; 0 for a time in the future.
fn age_of(time_us: u64) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_micros(time_us)).as_secs_f64()
}
