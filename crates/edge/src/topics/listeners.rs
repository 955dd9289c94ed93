//! A worker's streams of topics.
//!
//! Who has heard all that there is lies in one list a topic, and gets the same bytes as all others.
//! Who is new, behind or resuming is brought there by a task, out of the topic's newest records.

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

use crate::following::cursor_wait::CursorWait;
use crate::following::reset::write_reset;
use crate::following::status::Status;
use crate::metrics::Metrics;
use crate::topics::follower::TopicStep;
use crate::topics::state::{Place, Resume};
use tutti_model::events::ResetReason;

/// Bytes written at once to who is behind, about.
const CHUNK_BYTES: usize = 16 * 1024;

/// On what terms a listener gets a stream.
pub(crate) struct Listen {
    pub(crate) topic: Arc<str>,
    pub(crate) steps: watch::Receiver<Option<Arc<TopicStep>>>,
    /// Only events of this key.
    pub(crate) key: Option<Bytes>,
    pub(crate) from: StartAt,
}

/// Where a listener begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StartAt {
    /// With what comes from now on.
    Now,
    /// After what it has heard, perhaps from another edge.
    After(Place),
    /// With a reset, and then all that there is: it came with something that we cannot tell.
    Lost(ResetReason),
    /// With all that there is.
    Oldest,
}

/// One listener's stream.
struct Listener {
    stream: Stream,
    topic: Arc<str>,
    key: Option<Bytes>,
    from: StartAt,
    /// The generation that `from` is of; `None` if it came from the client.
    generation: Option<u64>,
    status: Option<Status>,
    patience: CursorWait,
}

/// One worker's streams of topics.
pub(crate) struct TopicStreams {
    hub: Rc<Hub>,
    metrics: Metrics,
    topics: RefCell<BTreeMap<Arc<str>, Topic>>,
}

impl Member for Listener {
    fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }
}

/// The listeners of one topic, once there was one.
struct Topic {
    step: Option<Arc<TopicStep>>,
    live: LiveList<Listener>,
    stepped: Rc<Notify>,
}

/// What comes next for who is not among the others.
enum NextWrite {
    Write(Events),
    Wait(Instant),
    Arrived,
}

impl TopicStreams {
    /// The streams of a worker that has none yet.
    pub(crate) fn new(hub: Rc<Hub>, metrics: Metrics) -> Rc<Self> {
        let streams = Rc::new(Self { hub: hub.clone(), metrics, topics: RefCell::default() });
        hub.add(streams.clone());
        streams
    }

    /// Takes a listener's stream over.
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
        let listener = Listener {
            stream,
            topic,
            key,
            from,
            generation: None,
            status: None,
            patience: CursorWait::default(),
        };
        self.serve(listener, hello);
    }

    /// Writes what one step of a topic brings to the streams that are at the step before.
    fn step(self: &Rc<Self>, name: &str, step: Option<Arc<TopicStep>>) {
        let mut topics = self.topics.borrow_mut();
        let Some(topic) = topics.get_mut(name) else { return };
        let before = std::mem::replace(&mut topic.step, step);
        topic.stepped.notify_waiters();
        let (Some(before), Some(step)) = (before, topic.step.clone()) else { return };
        let from = match step.view.resume(Place::after(before.view.position())) {
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
                // What was written, or begun, has been heard.
                listener.from = StartAt::After(Place::after(Some(entry.position)));
                match &listener.key {
                    None => entry.frame().map(|frame| listener.stream.encode(frame)),
                    Some(key) => {
                        let events = entry.text(0, Some(key));
                        (!events.is_empty()).then(|| listener.stream.encode(&events.frame()))
                    }
                }
            });
            self.serve_removed(removed);
        }
        let place = Place::after(step.view.position());
        for listener in topic.live.iter_mut() {
            listener.from = StartAt::After(place);
        }
    }

    /// Brings the streams whose socket was full to where the others are, and ends those that are closed.
    fn serve_removed(self: &Rc<Self>, removed: Vec<(Listener, WriteOutcome)>) {
        for (listener, outcome) in removed {
            match outcome {
                WriteOutcome::Partial(rest) => self.serve(listener, rest),
                _ => self.metrics.sse.ended(CloseReason::Left),
            }
        }
    }

    /// Brings a listener to where the others are, as a task of its own, and puts it among them.
    fn serve(self: &Rc<Self>, listener: Listener, rest: Bytes) {
        let ours = self.clone();
        self.hub.spawn_behind(async move { ours.bring(listener, rest).await });
    }

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
            match listener.next(step.as_deref(), Instant::now(), &self.metrics) {
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
            for listener in topic.live.take_over() {
                let reason = self.hub.close_swept(listener.stream);
                self.metrics.sse.ended(reason);
            }
            let Some(step) = &topic.step else { continue };
            let id = Place::after(step.view.position()).to_text();
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

impl Listener {
    /// The next events, given the newest step, if there was one yet.
    fn next(&mut self, step: Option<&TopicStep>, now: Instant, metrics: &Metrics) -> NextWrite {
        let mut events = Events::default();
        let Some(step) = step else { return self.wait(now) };
        if self.generation.is_some_and(|generation| generation != step.generation) {
            self.from = StartAt::Lost(step.reset_reason);
        }
        let mut placed = false;
        let (index, mut had) = match self.from {
            StartAt::Now => {
                let place = Place::after(step.view.position());
                placed = true;
                self.from = StartAt::After(place);
                (usize::MAX, 0)
            }
            StartAt::Oldest => (0, 0),
            StartAt::Lost(reason) => {
                placed = true;
                write_reset(reason, &mut events, metrics);
                (0, 0)
            }
            StartAt::After(place) => match step.view.resume(place) {
                Resume::From(index, had) => (index, had),
                Resume::TooOld => {
                    placed = true;
                    write_reset(ResetReason::TooOld, &mut events, metrics);
                    (0, 0)
                }
                Resume::Unknown => {
                    if !self.patience.is_over(step.polls, step.view.reaches(step.head)) {
                        return self.wait(now);
                    }
                    placed = true;
                    write_reset(ResetReason::UnknownId, &mut events, metrics);
                    (0, 0)
                }
            },
        };
        self.generation = Some(step.generation);
        if self.status.replace(step.status) != Some(step.status) {
            step.status.write(&mut events);
        }
        let (mut last, mut more) = (Place::after(step.view.position()), false);
        let mut bytes = 0;
        if index != usize::MAX {
            for entry in &step.view.from(index) {
                let text = entry.text(had, self.key.as_deref());
                bytes += text.len();
                events.append(&text);
                had = 0;
                if bytes >= CHUNK_BYTES {
                    (last, more) = (Place::after(Some(entry.position)), true);
                    break;
                }
            }
        }
        if placed && !more {
            // Also where there was no event: who comes back has heard it all.
            events.id(&last.to_text());
        }
        self.from = StartAt::After(last);
        if events.is_empty() && !more { NextWrite::Arrived } else { NextWrite::Write(events) }
    }

    fn wait(&mut self, now: Instant) -> NextWrite {
        let (until, events) = self.patience.wait(now, &mut self.status);
        if events.is_empty() { NextWrite::Wait(until) } else { NextWrite::Write(events) }
    }
}
