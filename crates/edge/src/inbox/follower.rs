//! Follows the feeds of all mailboxes, and sends what came to the workers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::warn;
use tutti_feed::{ConnectionRegistry, Event, Head, Letter, Mailboxes, Position, follow_newest};
use tutti_service::{ExposeSecret as _, SecretString};

use crate::following::status::{Liveness, Status};
use crate::inbox::client::Notify;
use crate::inbox::connections::Connections;
use crate::inbox::events::EncodedLetter;
use crate::metrics::Metrics;

/// Largest number of events in one step. One event may be for all devices of a worker, which does nothing else while it
/// writes them.
const EVENTS_A_TURN: usize = 32;

/// Largest number of steps that wait for a worker. A worker that misses steps has its devices read their mailboxes.
pub(crate) const STEPS_WAITING: usize = 256;

/// What the handlers of all workers share: the mailboxes, the service, and the registry of connections.
pub(crate) struct Inboxes {
    pub(crate) mailboxes: Mailboxes,
    pub(crate) notify: Notify,
    pub(crate) connections: Arc<Connections>,
    pub(crate) registry: ConnectionRegistry,
}

/// What came since the last step. All workers receive the same steps.
#[derive(Debug)]
pub(crate) struct InboxStep {
    /// The number of the step. A worker that finds a number left out has missed steps.
    pub(crate) no: u64,
    /// What came, in order.
    pub(crate) changes: Vec<Change>,
    /// The position of each bucket's feed after the changes.
    pub(crate) places: Arc<[Option<Position>]>,
    /// Whether news arrives from the feeds.
    pub(crate) status: Status,
}

/// One change of a bucket's feed.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A record of a bucket's feed, with its letters.
    Record { bucket: usize, position: Position, letters: Vec<Arc<EncodedLetter>> },
    /// Devices that follow a mailbox of this bucket must read it, because records are missing or the history is
    /// another.
    Reset(usize),
}

/// Follows the feeds of all buckets.
pub(crate) struct InboxFollower {
    redis_url: SecretString,
    metrics: Metrics,
    mailboxes: Mailboxes,
    steps: broadcast::Sender<Arc<InboxStep>>,
    no: u64,
    changes: Vec<Change>,
    places: Vec<Option<Position>>,
    status: Status,
    /// Liveness of all feeds together, because their heads are polled together.
    liveness: Liveness,
    /// For each bucket, the number of records that lie in Kafka and cannot be read yet, as the bucket's feed says.
    held_back: Vec<u64>,
}

impl InboxFollower {
    /// Returns a follower that will send its steps to `steps`.
    pub(crate) fn new(
        redis_url: SecretString,
        metrics: Metrics,
        mailboxes: Mailboxes,
        steps: broadcast::Sender<Arc<InboxStep>>,
    ) -> Self {
        let places = vec![None; mailboxes.feeds().len()];
        let (status, held_back) = (Status::Stale { since_ms: None }, vec![0; places.len()]);
        let (no, changes, liveness) = (0, Vec::new(), Liveness::new(1));
        Self { redis_url, metrics, mailboxes, steps, no, changes, places, status, liveness, held_back }
    }

    /// Follows the feeds for ever.
    ///
    /// # Errors
    /// If the URL of Redis is not valid.
    pub(crate) async fn run(mut self) -> Result<(), tutti_feed::Error> {
        let names = self.mailboxes.feeds();
        let url = self.redis_url.expose_secret().to_owned();
        let mut watch = interval(Duration::from_secs(1));
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut following = follow_newest(&url, &names, self.metrics.follow_inboxes.clone())?;
            loop {
                tokio::select! {
                    events = following.next_few(EVENTS_A_TURN) => {
                        if events.is_empty() {
                            break;
                        }
                        events.into_iter().for_each(|event| self.take(event));
                    }
                    _ = watch.tick() => {}
                }
                self.publish();
            }
            warn!("the subscription to the inboxes ended unexpectedly; following them again");
            (0..names.len()).for_each(|bucket| self.reset_bucket(bucket));
            self.held_back.fill(0);
        }
    }

    /// Takes in one event of the feeds.
    fn take(&mut self, event: Event) {
        match event {
            Event::Heads(heads) if heads.contains(&Head::Unknown) => {}
            Event::Heads(_) => self.liveness.hear(0, None, Instant::now()),
            Event::HeldBack { feed, records } => self.held_back[feed] = records,
            Event::Reset { feed, .. } => self.reset_bucket(feed),
            Event::Record { feed, record } => {
                let position = record.position;
                self.places[feed] = Some(position);
                let Some(letters) = Letter::read_all(record.payload) else {
                    self.metrics.cannot_read(&self.mailboxes.feeds()[feed], position.seq);
                    self.changes.push(Change::Reset(feed));
                    return;
                };
                let letters = letters.into_iter().map(EncodedLetter::new).collect();
                self.changes.push(Change::Record { bucket: feed, position, letters });
            }
        }
    }

    /// Notes that a bucket's feed does not go on where it stood.
    fn reset_bucket(&mut self, bucket: usize) {
        self.places[bucket] = None;
        self.changes.push(Change::Reset(bucket));
    }

    /// Sends a step to the workers, if anything came or the status has changed.
    fn publish(&mut self) {
        // A partition reports the same number to all buckets.
        let records = self.held_back.iter().copied().max().unwrap_or(0);
        self.liveness.hold_back(0, records);
        let status = self.liveness.status(Instant::now());
        if self.changes.is_empty() && status == self.status && self.no > 0 {
            return;
        }
        self.status = status;
        self.no += 1;
        let changes = std::mem::take(&mut self.changes);
        let places = self.places.as_slice().into();
        // The send fails only when all workers have ended.
        let _ = self.steps.send(Arc::new(InboxStep { no: self.no, changes, places, status }));
    }
}
