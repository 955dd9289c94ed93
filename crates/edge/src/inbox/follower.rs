//! Follows the feeds of all mailboxes, and tells the workers what came.

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

/// Events taken in before the workers are told of them. One may be for all devices of a worker, which does
/// nothing else meanwhile.
const EVENTS_A_TURN: usize = 32;

/// Steps that wait for a worker; one that misses some has its devices read their mailboxes.
pub(crate) const STEPS_WAITING: usize = 256;

/// What the handlers need of the inboxes.
pub(crate) struct Inboxes {
    pub(crate) mailboxes: Mailboxes,
    pub(crate) notify: Notify,
    pub(crate) connections: Arc<Connections>,
    pub(crate) registry: ConnectionRegistry,
}

/// What came, the same for all workers.
#[derive(Debug)]
pub(crate) struct InboxStep {
    /// Counts the steps of this edge.
    pub(crate) no: u64,
    /// In the order in which it came.
    pub(crate) changes: Vec<Change>,
    /// Where each feed stands after it.
    pub(crate) places: Arc<[Option<Position>]>,
    pub(crate) status: Status,
}

/// One thing that came.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A record of a bucket's feed.
    Record { bucket: usize, position: Position, told: Vec<Arc<EncodedLetter>> },
    /// Who follows a mailbox of this bucket must read it: records are missing, or the history is another.
    Anew(usize),
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
    /// Of all feeds together: their heads are asked for at once.
    liveness: Liveness,
    /// Records that lie in Kafka and cannot be read yet, as each bucket's feed says.
    held_back: Vec<u64>,
}

impl InboxFollower {
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

    /// Runs for ever.
    ///
    /// # Errors
    /// If the URL of Redis is none.
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
            warn!("following the inboxes ended by itself; beginning anew");
            (0..names.len()).for_each(|bucket| self.begin_anew(bucket));
            self.held_back.fill(0);
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Heads(heads) if heads.contains(&Head::Unknown) => {}
            Event::Heads(_) => self.liveness.hear(0, None, Instant::now()),
            Event::HeldBack { feed, records } => self.held_back[feed] = records,
            Event::Reset { feed, .. } => self.begin_anew(feed),
            Event::Record { feed, record } => {
                let position = record.position;
                self.places[feed] = Some(position);
                let Some(letters) = Letter::read_all(record.payload) else {
                    self.metrics.cannot_read(&self.mailboxes.feeds()[feed], position.seq);
                    self.changes.push(Change::Anew(feed));
                    return;
                };
                let told = letters.into_iter().map(EncodedLetter::new).collect();
                self.changes.push(Change::Record { bucket: feed, position, told });
            }
        }
    }

    /// What follows is not what came next.
    fn begin_anew(&mut self, bucket: usize) {
        self.places[bucket] = None;
        self.changes.push(Change::Anew(bucket));
    }

    fn publish(&mut self) {
        // A partition says the same to all buckets.
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
        // Nobody listens only when the workers have ended.
        let _ = self.steps.send(Arc::new(InboxStep { no: self.no, changes, places, status }));
    }
}
