//! A worker's streams of topics.
//!
//! Who has heard all that there is lies in one list a topic, and gets the same bytes as all others.
//! Who is new, behind or resuming is brought there by a task, out of the topic's newest records.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::rt::spawn;
use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::following::cursor_wait::{Patience, write_reset};
use crate::map::tick::Status;
use crate::metrics::Metrics;
use crate::sse::frame::Events;
use crate::sse::hub::Hub;
use crate::sse::stream::{End, Stream, Written};
use crate::topics::follower::TopicStep;
use crate::topics::state::{Place, Resume};
use tutti_model::ResetReason;

/// Bytes written at once to who is behind, about.
const CHUNK_BYTES: usize = 16 * 1024;

/// On what terms a listener gets a stream.
pub(crate) struct Listen {
    pub(crate) topic: Arc<str>,
    pub(crate) steps: watch::Receiver<Option<Arc<TopicStep>>>,
    /// Only events of this key.
    pub(crate) key: Option<Bytes>,
    pub(crate) from: From,
}

/// Where a listener begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum From {
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
    from: From,
    /// The generation that `from` is of; `None` if it came from the client.
    generation: Option<u64>,
    status: Option<Status>,
    patience: Patience,
}

/// The listeners of all topics.
#[derive(Default)]
pub(crate) struct Audience {
    topics: BTreeMap<Arc<str>, Topic>,
}

/// The listeners of one topic, once there was one.
struct Topic {
    step: Option<Arc<TopicStep>>,
    live: Vec<Listener>,
    stepped: Rc<Notify>,
}

/// What comes next for who is not among the others.
enum NextWrite {
    Write(Events),
    Wait(Instant),
    Arrived,
}

impl Hub {
    /// Takes a listener's stream over, its response head written.
    pub(crate) fn admit_listener(self: Rc<Self>, stream: Stream, hello: Bytes, listen: Listen) {
        let Listen { topic, mut steps, key, from } = listen;
        let mut audience = self.audience.borrow_mut();
        audience.topics.entry(topic.clone()).or_insert_with(|| {
            let step = steps.borrow_and_update().clone();
            let (hub, name) = (Rc::downgrade(&self), topic.clone());
            spawn(async move {
                while steps.changed().await.is_ok() {
                    let Some(hub) = hub.upgrade() else { return };
                    let step = steps.borrow_and_update().clone();
                    hub.step_topic(&name, step);
                }
            });
            Topic { step, live: Vec::new(), stepped: Rc::default() }
        });
        drop(audience);
        let listener = Listener {
            stream,
            topic,
            key,
            from,
            generation: None,
            status: None,
            patience: Patience::default(),
        };
        self.serve_listener(listener, hello);
    }

    /// A topic moved on.
    fn step_topic(self: &Rc<Self>, name: &str, step: Option<Arc<TopicStep>>) {
        let mut audience = self.audience.borrow_mut();
        let Some(topic) = audience.topics.get_mut(name) else { return };
        let before = std::mem::replace(&mut topic.step, step);
        topic.stepped.notify_waiters();
        let (Some(before), Some(step)) = (before, topic.step.clone()) else { return };
        let from = match step.view.resume(Place::after(before.view.position())) {
            Resume::From(index, _) if before.generation == step.generation => Some(index),
            _ => None,
        };
        let Some(index) = from.filter(|_| before.status == step.status) else {
            for listener in topic.live.drain(..) {
                self.clone().serve_listener(listener, Bytes::new());
            }
            return;
        };
        let fresh = step.view.from(index);
        let place = Place::after(step.view.position());
        let mut at = 0;
        'listeners: while let Some(listener) = topic.live.get_mut(at) {
            for entry in &fresh {
                let bytes = match &listener.key {
                    None => entry.frame().map(|frame| listener.stream.encode(frame)),
                    Some(key) => {
                        let events = entry.text(0, Some(key));
                        (!events.is_empty()).then(|| listener.stream.encode(&events.frame()))
                    }
                };
                // What was written, or begun, has been heard.
                listener.from = From::After(Place::after(Some(entry.position)));
                let Some(bytes) = bytes else { continue };
                match self.deliver(&mut listener.stream, bytes) {
                    Written::All => {}
                    Written::Rest(rest) => {
                        self.metrics.fell_behind.inc();
                        self.clone().serve_listener(topic.live.swap_remove(at), rest);
                        continue 'listeners;
                    }
                    Written::Gone => {
                        topic.live.swap_remove(at);
                        self.ended(End::Left);
                        continue 'listeners;
                    }
                }
            }
            listener.from = From::After(place);
            at += 1;
        }
    }

    /// Once a second: ends what is over, finds who left, sends heartbeats.
    pub(crate) fn sweep_topics(self: &Rc<Self>) {
        let now = Instant::now();
        let mut audience = self.audience.borrow_mut();
        for topic in audience.topics.values_mut() {
            for listener in topic.live.extract_if(.., |listener| listener.stream.is_over()) {
                let end = self.close(listener.stream);
                self.ended(end);
            }
            let Some(step) = &topic.step else { continue };
            let id = Place::after(step.view.position()).to_text();
            let heartbeat = Events::default().heartbeat().id(&id).frame();
            let mut at = 0;
            while let Some(listener) = topic.live.get_mut(at) {
                if now - listener.stream.last_write < self.config.heartbeat {
                    at += 1;
                    continue;
                }
                let bytes = listener.stream.encode(&heartbeat);
                match self.deliver(&mut listener.stream, bytes) {
                    Written::All => at += 1,
                    Written::Rest(rest) => {
                        self.clone().serve_listener(topic.live.swap_remove(at), rest);
                    }
                    Written::Gone => {
                        topic.live.swap_remove(at);
                        self.ended(End::Left);
                    }
                }
            }
        }
    }

    /// Gives each stream an end within the drain window.
    pub(crate) fn drain_topics(&self) {
        let mut audience = self.audience.borrow_mut();
        for listener in audience.topics.values_mut().flat_map(|topic| &mut topic.live) {
            listener.stream.drain(self.drain_end());
        }
    }

    /// Brings a listener to where the others are, as a task of its own, and puts it among them.
    fn serve_listener(self: Rc<Self>, listener: Listener, rest: Bytes) {
        spawn(async move {
            self.metrics.behind.inc();
            let served = self.bring_listener(listener, rest).await;
            self.metrics.behind.dec();
            if let Err(end) = served {
                self.ended(end);
            }
        });
    }

    async fn bring_listener(&self, mut listener: Listener, rest: Bytes) -> Result<(), End> {
        self.write(&mut listener.stream, rest).await?;
        loop {
            if self.draining.is_cancelled() {
                listener.stream.drain(self.drain_end());
            }
            if listener.stream.ends_at <= Instant::now() {
                return Err(listener.stream.close(self.retry()));
            }
            let (step, stepped) = {
                let audience = self.audience.borrow();
                let topic = audience.topics.get(&listener.topic).expect("a topic that was heard of stays");
                (topic.step.clone(), topic.stepped.clone())
            };
            match listener.next(step.as_deref(), Instant::now(), &self.metrics) {
                NextWrite::Arrived => {
                    let mut audience = self.audience.borrow_mut();
                    let topic =
                        audience.topics.get_mut(&listener.topic).expect("a topic that was heard of stays");
                    topic.live.push(listener);
                    return Ok(());
                }
                NextWrite::Write(events) => {
                    let bytes = listener.stream.encode(&events.frame());
                    self.deliver_all(&mut listener.stream, bytes).await?;
                }
                NextWrite::Wait(until) => {
                    tokio::select! {
                        () = stepped.notified() => {}
                        () = self.pause(&mut listener.stream, until) => {}
                    }
                    self.keep_alive(&mut listener.stream).await?;
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Listener {
    /// The next events, given the newest step, if there was one yet.
    fn next(&mut self, step: Option<&TopicStep>, now: Instant, metrics: &Metrics) -> NextWrite {
        let mut events = Events::default();
        let Some(step) = step else { return self.wait(now) };
        if self.generation.is_some_and(|generation| generation != step.generation) {
            self.from = From::Lost(step.reset_reason);
        }
        let mut placed = false;
        let (index, mut had) = match self.from {
            From::Now => {
                let place = Place::after(step.view.position());
                placed = true;
                self.from = From::After(place);
                (usize::MAX, 0)
            }
            From::Oldest => (0, 0),
            From::Lost(reason) => {
                placed = true;
                write_reset(reason, &mut events, metrics);
                (0, 0)
            }
            From::After(place) => match step.view.resume(place) {
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
        self.from = From::After(last);
        if events.is_empty() && !more { NextWrite::Arrived } else { NextWrite::Write(events) }
    }

    fn wait(&mut self, now: Instant) -> NextWrite {
        let (until, events) = self.patience.wait(now, &mut self.status);
        if events.is_empty() { NextWrite::Wait(until) } else { NextWrite::Write(events) }
    }
}
