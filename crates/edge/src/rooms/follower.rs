//! Follows the waiting rooms that have streams at this edge. Each room has one task, which follows the room's feed from
//! a snapshot on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tonic::Code;
use tracing::{info, warn};
use tutti_feed::{Cursor, Event, follow_from};
use tutti_model::names;
use tutti_model::queue::RoomName;
use tutti_service::{ExposeSecret as _, SecretString};

use crate::following::membership::Visits;
use crate::following::status::{Liveness, Status};
use crate::http::upstream::is_passing;
use crate::metrics::Metrics;
use crate::rooms::client::Queue;
use crate::rooms::presence::{Presence, report};
use crate::rooms::state::{Applied, RoomView};

/// Shortest time between two steps of a room that come from records.
const STEP: Duration = Duration::from_millis(50);
/// How long a room is followed after its last stream closed.
const LINGER: Duration = Duration::from_secs(30);
/// Time between two attempts at something that failed.
const RETRY: Duration = Duration::from_millis(500);

/// A state of a room that was published to all workers.
#[derive(Debug)]
pub(crate) struct RoomStep {
    /// Counts the histories of the room. When it changes, the service must be asked again for each ticket.
    pub(crate) generation: u64,
    /// The room, or `None` if the room is gone.
    pub(crate) view: Option<RoomView>,
    /// The version as the `id:` that clients receive. Empty if the room is gone.
    pub(crate) id: Arc<str>,
    /// Whether news of the room arrives.
    pub(crate) status: Status,
}

/// A room that is being followed.
pub(crate) struct RoomFeed {
    pub(crate) name: Arc<str>,
    /// The steps of the room. `None` until the first snapshot.
    pub(crate) steps: watch::Receiver<Option<Arc<RoomStep>>>,
    /// The tickets that have streams here.
    pub(crate) presence: Arc<Presence>,
}

/// All rooms that this edge follows.
pub(crate) struct Rooms {
    /// The waiting room's service.
    pub(crate) queue: Queue,
    redis_url: SecretString,
    metrics: Metrics,
    /// The runtime on which the tasks run, because streams live on threads of their own.
    runtime: Handle,
    /// The rooms that are followed, by name.
    followed: Mutex<HashMap<String, Arc<RoomFeed>>>,
}

impl Rooms {
    /// Returns an empty set of rooms, whose tasks will run on the current runtime.
    ///
    /// # Panics
    /// If it is called outside of a runtime.
    pub(crate) fn new(redis_url: SecretString, queue: Queue, metrics: Metrics) -> Self {
        Self { queue, redis_url, metrics, runtime: Handle::current(), followed: Mutex::default() }
    }

    /// Returns the feed of a room, and starts a task that follows it unless there is one.
    pub(crate) fn follow(self: &Arc<Self>, name: &str) -> Arc<RoomFeed> {
        let mut all = self.followed();
        if let Some(followed) = all.get(name) {
            return followed.clone();
        }
        let (steps, receiver) = watch::channel(None);
        let followed = Arc::new(RoomFeed {
            name: name.into(),
            steps: receiver,
            presence: Arc::new(Presence::new(Visits::Reported)),
        });
        all.insert(name.to_owned(), followed.clone());
        self.metrics.rooms.inc();
        let (rooms, feed) = (self.clone(), followed.clone());
        self.runtime.spawn(async move {
            let follower = RoomFollower {
                rooms: &rooms,
                room: &feed,
                steps,
                status: Status::Stale { since_ms: None },
                generation: 0,
            };
            tokio::select! {
                never = follower.run() => match never {},
                never = report(&rooms.queue, &feed.name, &feed.presence) => match never {},
                () = rooms.until_unused(&feed) => {}
            }
            rooms.metrics.rooms.dec();
        });
        followed
    }

    fn followed(&self) -> MutexGuard<'_, HashMap<String, Arc<RoomFeed>>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a room has had no stream for [`LINGER`] and the service knows, and removes it from the map.
    async fn until_unused(&self, room: &Arc<RoomFeed>) {
        let mut idle_since = Instant::now();
        loop {
            sleep(LINGER / 10).await;
            let mut all = self.followed();
            // Two references are the map's and this task's own. While the map is locked nobody else can get another.
            if Arc::strong_count(room) > 2 || !room.presence.is_idle() {
                idle_since = Instant::now();
            } else if idle_since.elapsed() >= LINGER {
                all.remove(&*room.name);
                return;
            }
        }
    }
}

/// Follows the feed of one room and publishes its steps.
struct RoomFollower<'a> {
    rooms: &'a Rooms,
    room: &'a RoomFeed,
    steps: watch::Sender<Option<Arc<RoomStep>>>,
    status: Status,
    generation: u64,
}

/// Why following from a snapshot ended.
enum Ended {
    /// Another snapshot is needed: all visitors received their places, or this version of Tutti cannot read a record.
    Restart,
    /// The feed has another history than the snapshot.
    Reset,
}

impl RoomFollower<'_> {
    /// Follows the room for ever: takes a snapshot, follows the feed from it, and starts again when that ends.
    async fn run(mut self) -> std::convert::Infallible {
        loop {
            let Some(view) = self.snapshot().await else {
                self.generation += 1;
                self.publish(None);
                sleep(RETRY).await;
                continue;
            };
            match self.follow(view).await {
                Ok(Ended::Restart) => {
                    info!(
                        room = &*self.room.name,
                        "the room opened, or a record of it cannot be read; taking another snapshot"
                    );
                }
                Ok(Ended::Reset) => {
                    warn!(
                        room = &*self.room.name,
                        "the room's history in Redis has changed; asking for all of its tickets again"
                    );
                    self.generation += 1;
                }
                Err(error) => {
                    warn!(room = &*self.room.name, %error, "could not follow the room; trying again");
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Returns the current state of the room, or `None` if there is no such room. Asks the service until it answers;
    /// from the first failure on, streams have the status `stale`.
    async fn snapshot(&mut self) -> Option<RoomView> {
        let mut said = false;
        loop {
            let name = RoomName { room: self.room.name.to_string() };
            let ask = self.rooms.queue.ask(name, |mut q, name| async move { q.snapshot(name).await });
            match ask.await {
                Ok(snapshot) => return RoomView::of_snapshot(snapshot),
                Err(status) if status.code() == Code::NotFound => return None,
                Err(status) => {
                    if !std::mem::replace(&mut said, true) {
                        warn!(
                            room = &*self.room.name,
                            why = status.message(),
                            "the waiting room's service gave no snapshot of the room; trying again"
                        );
                    }
                    let pause = if is_passing(&status) { RETRY } else { 4 * RETRY };
                    sleep(pause).await;
                    self.set_status(Status::Stale { since_ms: None });
                }
            }
        }
    }

    /// Follows the feed from the version of `view`, and publishes the steps, until another snapshot is needed.
    ///
    /// # Errors
    /// If the feed cannot be followed at all.
    async fn follow(&mut self, mut view: RoomView) -> Result<Ended, tutti_feed::Error> {
        let url = self.rooms.redis_url.expose_secret();
        let feed = names::room_feed(&self.room.name);
        let mut following = follow_from(url, &feed, view.version, self.rooms.metrics.follow_rooms.clone())?;
        let mut watch = interval(Duration::from_secs(1));
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut liveness = Liveness::new(1);
        let time_ms = |view: &RoomView| Some((view.version.time_us / 1000) as i64);
        liveness.hear(0, time_ms(&view), Instant::now());
        let (mut published_at, mut dirty) = (Instant::now(), false);
        // The snapshot comes from Redis itself, so it is current. It can be older than what was published before only
        // if Redis lost changes, which is a reset.
        self.status = Status::Live;
        self.publish(Some(&view));
        loop {
            tokio::select! {
                event = following.next() => match event {
                    None | Some(Event::Reset { .. }) => return Ok(Ended::Reset),
                    Some(Event::Heads(_) | Event::HeldBack { .. }) => {}
                    Some(Event::Record { record, .. }) => {
                        dirty = true;
                        match view.apply(&record) {
                            Applied::Folded => liveness.hear(0, time_ms(&view), Instant::now()),
                            Applied::Opened => return Ok(Ended::Restart),
                            Applied::Unreadable => {
                                self.rooms.metrics.cannot_read(&feed, record.position.seq);
                                return Ok(Ended::Restart);
                            }
                        }
                    }
                },
                () = sleep_until(published_at + STEP), if dirty => {
                    self.status = Status::Live;
                    self.publish(Some(&view));
                    (published_at, dirty) = (Instant::now(), false);
                }
                _ = watch.tick() => {
                    let status = liveness.status(Instant::now());
                    // A closed room gets no record each second, so its silence means nothing.
                    let is_quiet = status != Status::Live && view.mode != tutti_model::Mode::Closed;
                    if is_quiet && self.status == Status::Live {
                        self.status = status;
                        self.publish(Some(&view));
                    }
                }
            }
        }
    }

    /// Publishes the last step again with another status.
    fn set_status(&mut self, status: Status) {
        self.status = status;
        let last = self.steps.borrow().clone();
        if let Some(last) = last.filter(|last| last.status != status) {
            self.steps.send_replace(Some(Arc::new(RoomStep {
                generation: last.generation,
                view: last.view.clone(),
                id: last.id.clone(),
                status,
            })));
        }
    }

    /// Publishes a step. `None` means that the room is gone.
    fn publish(&self, view: Option<&RoomView>) {
        let id = view.map_or_else(String::new, |view| Cursor(vec![Some(view.version)]).to_text());
        self.steps.send_replace(Some(Arc::new(RoomStep {
            generation: self.generation,
            view: view.cloned(),
            id: id.into(),
            status: self.status,
        })));
    }
}
