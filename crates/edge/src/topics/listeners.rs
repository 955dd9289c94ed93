//! A worker's streams of topics.
//!
//! Streams that are up to date are in one list per topic, and receive the same bytes. A stream that is new, behind or
//! resuming is a task, which writes what it lacks out of the topic's newest records and then puts it into the list.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_local;
use tokio::time::Instant;
use tutti_sse::events::Events;
use tutti_sse::hub::{Hub, Job};
use tutti_sse::live::{LiveList, Member};
use tutti_sse::stream::{CloseReason, Stream, WriteOutcome};

use crate::following::next_write::NextWrite;
use crate::metrics::Metrics;
use crate::topics::catch_up::{StartAt, TopicCatchUp};
use crate::topics::follower::TopicStep;
use crate::topics::state::{EventPosition, Resume};

/// What a client may listen to, and from where on.
pub(crate) struct Listen {
    pub(crate) topic: Arc<str>,
    /// The steps of the topic.
    pub(crate) steps: watch::Receiver<Option<Arc<TopicStep>>>,
    /// The key whose events alone the client receives; `None` for all events.
    pub(crate) key: Option<Bytes>,
    /// Where the stream starts.
    pub(crate) from: StartAt,
}

/// One listener's stream.
struct Listener {
    stream: Stream,
    topic: Arc<str>,
    catch_up: TopicCatchUp,
}

/// A worker's streams of topics.
pub(crate) struct TopicStreams {
    hub: Rc<Hub>,
    metrics: Metrics,
    /// The topics that have had a listener here, by name.
    topics: RefCell<BTreeMap<Arc<str>, Topic>>,
}

impl Member for Listener {
    fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }
}

/// The listeners of one topic. It is created for the first listener and stays.
struct Topic {
    /// The newest step; `None` until the log of the topic has been read.
    step: Option<Arc<TopicStep>>,
    /// The streams that are up to date with `step`.
    live: LiveList<Listener>,
    /// Notified at each step.
    stepped: Rc<Notify>,
}

impl TopicStreams {
    /// Returns the streams of a worker, and adds them to the jobs of its hub.
    pub(crate) fn new(hub: &Rc<Hub>, metrics: Metrics) -> Rc<Self> {
        let streams = Rc::new(Self { hub: hub.clone(), metrics, topics: RefCell::default() });
        hub.add(streams.clone());
        streams
    }

    /// Takes a stream over: writes `hello`, and then what `listen` says.
    pub(crate) fn admit(self: Rc<Self>, stream: Stream, hello: Bytes, listen: Listen) {
        let Listen { topic, mut steps, key, from } = listen;
        self.topics.borrow_mut().entry(topic.clone()).or_insert_with(|| {
            let step = steps.borrow_and_update().clone();
            let (streams, name) = (Rc::downgrade(&self), topic.clone());
            spawn_local(async move {
                while steps.changed().await.is_ok() {
                    let Some(streams) = streams.upgrade() else { return };
                    let step = steps.borrow_and_update().clone();
                    streams.step(&name, step);
                }
            });
            Topic { step, live: LiveList::default(), stepped: Rc::default() }
        });
        let listener = Listener { stream, topic, catch_up: TopicCatchUp::new(from, key) };
        self.serve(listener, hello);
    }

    /// Writes what a new step of a topic brings to the streams in its list, which are at the step before. If the
    /// generation or the status has changed, or the step before is no longer kept, each of them becomes a task instead.
    fn step(self: &Rc<Self>, name: &str, step: Option<Arc<TopicStep>>) {
        let mut topics = self.topics.borrow_mut();
        let Some(topic) = topics.get_mut(name) else { return };
        let before = std::mem::replace(&mut topic.step, step);
        topic.stepped.notify_waiters();
        let (Some(before), Some(step)) = (before, topic.step.clone()) else { return };
        let from = match step.view.resume(EventPosition::after(before.view.position())) {
            Resume::From(index, _) if before.generation == step.generation => Some(index),
            _ => None,
        };
        let Some(index) = from.filter(|_| before.status == step.status) else {
            for listener in topic.live.take_all() {
                self.serve(listener, Bytes::new());
            }
            return;
        };
        for entry in &step.view.from(index) {
            let removed = topic.live.write(&self.hub, |listener| {
                // The client has received what was written; of a frame that was begun the rest follows.
                listener.catch_up.note(EventPosition::after(Some(entry.position)));
                match listener.catch_up.key() {
                    None => entry.frame().map(|frame| listener.stream.encode(frame)),
                    Some(key) => {
                        let events = entry.text(0, Some(key));
                        (!events.is_empty()).then(|| listener.stream.encode(&events.frame()))
                    }
                }
            });
            self.serve_removed(removed);
        }
        let place = EventPosition::after(step.view.position());
        for listener in topic.live.iter_mut() {
            listener.catch_up.note(place);
        }
    }

    /// Makes tasks of the streams whose socket was full, and ends those whose client has left.
    fn serve_removed(self: &Rc<Self>, removed: Vec<(Listener, WriteOutcome)>) {
        for (listener, outcome) in removed {
            match outcome {
                WriteOutcome::Partial(rest) => self.serve(listener, rest),
                _ => self.metrics.sse.ended(CloseReason::Left),
            }
        }
    }

    /// Brings a listener up to date, as a task of its own, and puts it into the list. `rest` is written first.
    fn serve(self: &Rc<Self>, listener: Listener, rest: Bytes) {
        let streams = self.clone();
        self.hub.spawn_behind(async move { streams.bring(listener, rest).await });
    }

    /// Writes to a listener what it lacks, until it is up to date and in the list.
    ///
    /// # Errors
    /// Why the stream ended.
    async fn bring(&self, mut listener: Listener, rest: Bytes) -> Result<(), CloseReason> {
        self.hub.write(&mut listener.stream, rest).await?;
        loop {
            if self.hub.is_due(&mut listener.stream) {
                return Err(self.hub.close(listener.stream));
            }
            let (step, stepped) = {
                let topics = self.topics.borrow();
                let topic = topics.get(&listener.topic).expect("a topic that was heard of stays");
                (topic.step.clone(), topic.stepped.clone())
            };
            match listener.catch_up.next(step.as_deref(), Instant::now(), &self.metrics) {
                NextWrite::Arrived => {
                    let mut topics = self.topics.borrow_mut();
                    let topic = topics.get_mut(&listener.topic).expect("a topic that was heard of stays");
                    topic.live.push(listener);
                    return Ok(());
                }
                NextWrite::Write(events) => {
                    let bytes = listener.stream.encode(&events.frame());
                    self.hub.deliver_all(&mut listener.stream, bytes).await?;
                }
                NextWrite::Wait(until) => {
                    tokio::select! {
                        () = stepped.notified() => {}
                        () = self.hub.pause(&mut listener.stream, until) => {}
                    }
                    self.hub.keep_alive(&mut listener.stream, "").await?;
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Job for TopicStreams {
    fn sweep(self: Rc<Self>) {
        for topic in self.topics.borrow_mut().values_mut() {
            for listener in topic.live.remove_ended() {
                let reason = self.hub.close_swept(listener.stream);
                self.metrics.sse.ended(reason);
            }
            let Some(step) = &topic.step else { continue };
            let id = EventPosition::after(step.view.position()).to_text();
            let heartbeat = Events::default().heartbeat().id(&id).frame();
            let removed = topic.live.write(&self.hub, |listener| {
                let is_due = self.hub.is_heartbeat_due(&listener.stream);
                is_due.then(|| listener.stream.encode(&heartbeat))
            });
            self.serve_removed(removed);
        }
    }

    fn drain(&self) {
        for topic in self.topics.borrow_mut().values_mut() {
            topic.live.drain(&self.hub);
        }
    }
}
