//! Follows the feeds of the live map, keeps its state, and publishes it step by step.

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

/// Steps that a worker may be late by before its clients are served by replays.
pub(crate) const TICKS_WAITING: usize = 256;

/// Events applied in a row before other work has its turn: a long log must not hold a tick up.
const EVENTS_A_TURN: usize = 256;

/// The heads of all feeds, as Redis had them.
type Heads = Vec<Option<Position>>;

pub(crate) struct MapFollower {
    settings: MapSettings,
    redis_url: SecretString,
    allow_eviction: bool,
    metrics: Metrics,
    ticks: broadcast::Sender<Arc<Tick>>,
    latch: Option<Latch>,
    map: MapState,
    /// A feed has had a record since this edge began.
    used: bool,
    /// All records up to the heads of the first poll have been applied: what is published is whole.
    caught_up: bool,
    /// Redis's heads at the last poll of this history.
    heads: Option<Heads>,
    polls: u64,
    liveness: Liveness,
    status: Status,
    generation: u64,
    reset_reason: ResetReason,
    /// The last step.
    published: Option<Arc<Tick>>,
    /// Something was applied that has not been published.
    dirty: bool,
    last_tick: Instant,
}

/// What to do after an event.
enum Next {
    GoOn,
    /// The history is another: begin anew from the logs.
    BeginAnew(ResetReason),
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

    /// Runs for ever.
    ///
    /// # Errors
    /// If the URL of Redis is none, or the services that share it are configured otherwise.
    pub(crate) async fn run(mut self) -> Result<(), tutti_feed::Error> {
        loop {
            self.agree().await?;
            let reason = self.follow_until_reset().await?;
            warn!(%reason, "the live map begins anew from the logs; its clients get a reset");
            // The last word of this generation: nothing is known of what Redis has now.
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

    /// Waits for Redis, and compares the settings that all services must share; one that came
    /// back empty is told them anew.
    async fn agree(&self) -> Result<(), tutti_feed::Error> {
        let redis = connect(self.redis_url.expose_secret())?;
        // One that has come to evict since the start ends no stream.
        let allow_eviction = self.allow_eviction || self.generation > 0;
        let waits = |why: &str| {
            if let Some(latch) = &self.latch {
                latch.because(why);
            }
        };
        let agreement = self.settings.locations.agreement();
        wait_for_agreement(&redis.client, "locations", &agreement, allow_eviction, waits).await
    }

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
                    if let Next::BeginAnew(reason) = self.take(events) {
                        return Ok(reason);
                    }
                }
                () = sleep_until(due), if self.dirty && self.caught_up => self.publish(),
                _ = watch.tick() => self.watch_status(),
            }
        }
    }

    /// Applies events, up to a reset: what came after it is read anew.
    fn take(&mut self, events: Vec<Event>) -> Next {
        for event in events {
            match event {
                Event::Heads(heads) => {
                    // Without one of its shards a map is not whole.
                    let Some(heads) = heads.into_iter().map(Head::known).collect::<Option<Heads>>() else {
                        continue;
                    };
                    self.used |= heads.iter().any(Option::is_some);
                    self.heads = Some(heads);
                    self.polls += 1;
                    self.metrics.devices.set(self.map.view().alive().count() as i64);
                    // Clients that wait for a poll learn of it by a tick.
                    self.dirty = true;
                }
                Event::HeldBack { feed, records } => self.liveness.hold_back(feed, records),
                Event::Reset { reason, .. } => return Next::BeginAnew(reason),
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
                        // All edges see the gap at the same record: the state stays, but clients
                        // must know that something is missing.
                        self.generation += 1;
                        self.reset_reason = ResetReason::Gap;
                        info!(feed, "records are missing in Kafka; clients get a reset");
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

    /// A log that was cut by its length or bytes may lack devices that are alive.
    fn warn_of_short_logs(&self) {
        for (feed, whole_in) in self.map.view().incomplete() {
            warn!(
                feed,
                ?whole_in,
                "the log is too short: devices are missing until they report again; \
                 raise locations.log_max_entries or locations.log_max_bytes of ingest"
            );
        }
    }

    /// Stale where a feed that has records brings none, or not all that there are.
    fn watch_status(&mut self) {
        let status = self.liveness.status(Instant::now());
        // Nobody misses what there never was.
        let unused = !self.used && self.heads.is_some();
        self.metrics.stale.set(i64::from(status != Status::Live && !unused));
        if status != self.status {
            info!(?status, "the live map");
            self.status = status;
            self.dirty = true;
        }
    }

    fn publish(&mut self) {
        self.watch_status();
        let before = self.published.as_deref();
        // A step over a time longer than tombstones are kept may lack removals.
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
        // No receiver: no worker has started yet.
        let _ = self.ticks.send(tick);
        if let Some(latch) = self.latch.take() {
            latch.open();
        }
    }
}

fn empty_map(settings: &MapSettings) -> MapState {
    let locations = &settings.locations;
    MapState::new(locations.shards as usize, locations.stale_after, locations.log_age)
}

fn age_of(time_us: u64) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_micros(time_us)).as_secs_f64()
}
