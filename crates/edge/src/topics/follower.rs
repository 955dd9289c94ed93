//! Following the feeds of all topics that this edge serves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::warn;
use tutti_feed::{Event, Position, follow};
use tutti_model::ResetReason;
use tutti_model::names;
use tutti_service::{ExposeSecret as _, SecretString};

use crate::following::status::{Liveness, Status};
use crate::metrics::Metrics;
use crate::topics::settings::TopicSettings;
use crate::topics::state::TopicView;

/// Most records that are applied before the next steps are published.
const RECORDS_A_TURN: usize = 256;

/// The state of a topic at one step.
#[derive(Clone, Debug)]
pub(crate) struct TopicStep {
    /// Number of resets so far. What a client was shown in another generation may be void.
    pub(crate) generation: u64,
    /// Why this generation began.
    pub(crate) reset_reason: ResetReason,
    /// The newest records.
    pub(crate) view: TopicView,
    /// Whether news arrives.
    pub(crate) status: Status,
    /// The head of the feed in Redis, as it was polled last.
    pub(crate) head: Option<Position>,
    /// Number of polls of the head so far.
    pub(crate) polls: u64,
}

/// The newest step of each topic, by name; `None` until the log of the topic has been read.
pub(crate) type Topics = BTreeMap<Arc<str>, watch::Receiver<Option<Arc<TopicStep>>>>;

/// The feed of one topic, as the follower has read it.
struct TopicFeed {
    name: Arc<str>,
    steps: watch::Sender<Option<Arc<TopicStep>>>,
    step: TopicStep,
    liveness: Liveness,
    /// Whether the head of a poll has been reached since the generation began. Before that nothing is published.
    caught_up: bool,
    /// Whether `step` has changed since it was published.
    dirty: bool,
}

/// Follows the feeds of all topics in the configuration.
pub(crate) struct TopicFollower {
    redis_url: SecretString,
    memory_bytes: usize,
    metrics: Metrics,
    topics: Vec<TopicFeed>,
}

impl TopicFollower {
    /// Returns a follower of the topics in `settings`, and the channels with their steps.
    pub(crate) fn new(
        redis_url: SecretString,
        settings: &TopicSettings,
        metrics: Metrics,
    ) -> (Self, Arc<Topics>) {
        let mut topics = Topics::new();
        let feeds = settings.names.iter().map(|name| {
            let (steps, receiver) = watch::channel(None);
            let name: Arc<str> = name.as_str().into();
            topics.insert(name.clone(), receiver);
            let step = TopicStep {
                generation: 0,
                reset_reason: ResetReason::Start,
                view: TopicView::default(),
                status: Status::Stale { since_ms: None },
                head: None,
                polls: 0,
            };
            TopicFeed { name, steps, step, liveness: Liveness::new(1), caught_up: false, dirty: false }
        });
        let feeds = feeds.collect();
        (Self { redis_url, memory_bytes: settings.memory_bytes, metrics, topics: feeds }, Arc::new(topics))
    }

    /// Follows the topics for ever.
    ///
    /// # Errors
    /// If the URL of Redis is invalid.
    pub(crate) async fn run(mut self) -> Result<(), tutti_feed::Error> {
        let names: Vec<String> = self.topics.iter().map(|topic| names::topic_feed(&topic.name)).collect();
        let url = self.redis_url.expose_secret().to_owned();
        let mut watch = interval(Duration::from_secs(1));
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut following = follow(&url, &names, self.metrics.follow_topics.clone())?;
            loop {
                tokio::select! {
                    events = following.next_few(RECORDS_A_TURN) => {
                        if events.is_empty() {
                            break;
                        }
                        events.into_iter().for_each(|event| self.take(event));
                    }
                    _ = watch.tick() => {}
                }
                self.topics.iter_mut().for_each(TopicFeed::publish);
            }
            warn!("following the topics ended unexpectedly; following them again from their logs");
            for topic in &mut self.topics {
                topic.reset(ResetReason::FollowerEnded);
                topic.liveness.hold_back(0, 0);
            }
        }
    }

    /// Applies one event of the feeds.
    fn take(&mut self, event: Event) {
        match event {
            Event::Heads(heads) => {
                for (topic, head) in self.topics.iter_mut().zip(heads) {
                    let Some(head) = head.known() else { continue };
                    topic.caught_up |= topic.step.view.reaches(head);
                    topic.step.head = head;
                    topic.step.polls += 1;
                    topic.dirty = true;
                }
            }
            Event::HeldBack { feed, records } => self.topics[feed].liveness.hold_back(0, records),
            Event::Reset { feed, reason } => self.topics[feed].reset(reason),
            Event::Record { feed, record } => {
                let topic = &mut self.topics[feed];
                topic.liveness.hear(0, Some((record.position.time_us / 1000) as i64), Instant::now());
                topic.dirty = true;
                if !topic.step.view.push(&record, self.memory_bytes) {
                    self.metrics.cannot_read(&names::topic_feed(&topic.name), record.position.seq);
                }
            }
        }
    }
}

impl TopicFeed {
    /// Begins a new generation with an empty view, because the history has changed: what clients were shown may be
    /// void. The log follows from its oldest record.
    fn reset(&mut self, reason: ResetReason) {
        warn!(topic = &*self.name, %reason, "the topic is read again from its log; its clients receive a reset");
        self.step.generation += 1;
        self.step.reset_reason = reason;
        self.step.view = TopicView::default();
        self.caught_up = false;
        self.liveness.forget();
    }

    /// Publishes the step if it has changed and the log has been read.
    fn publish(&mut self) {
        let status = self.liveness.status(Instant::now());
        self.dirty |= status != self.step.status;
        self.step.status = status;
        if self.caught_up && std::mem::take(&mut self.dirty) {
            self.steps.send_replace(Some(Arc::new(self.step.clone())));
        }
    }
}
