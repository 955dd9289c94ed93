//! A worker's streams of waiting rooms.
//!
//! Visitors that wait are kept in the order of the line. Each step of a room is written at once to the visitors near
//! the front, and once a second to all visitors. A visitor's position is its rank in the room's bitmap, which is
//! computed in memory. The service is asked only about visitors that are new or no longer where they were.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_local};
use tutti_feed::Position;
use tutti_model::Mode;
use tutti_model::queue::TicketId;
use tutti_sse::events::Events;
use tutti_sse::hub::{Hub, Job};
use tutti_sse::live::LiveList;
use tutti_sse::stream::{CloseReason, Stream, WriteOutcome};
use tutti_sse::turns::Turns;

use crate::metrics::Metrics;
use crate::rooms::follower::{RoomFeed, RoomStep, Rooms};
use crate::rooms::visitor::Visitor;

/// Number of visitors of one worker about which the service is asked at the same time. The others wait for a turn; the
/// addresses take turns one after the other.
const QUESTIONS: usize = 16;

/// Last position in a line at which a visitor receives each change at once.
const NEAR: u64 = 20;

/// What is needed to open a visitor's stream.
pub(crate) struct Visit {
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) room: Arc<RoomFeed>,
    pub(crate) id: TicketId,
    /// The version of the room that the client had been shown before it came here.
    pub(crate) shown: Option<Position>,
    /// The client's network. The visitors of one network share its turns at asking the service.
    pub(crate) address: Option<IpAddr>,
}

/// One worker's streams of waiting rooms.
pub(crate) struct RoomStreams {
    pub(crate) hub: Rc<Hub>,
    pub(crate) metrics: Metrics,
    pub(crate) rooms: RefCell<BTreeMap<Arc<str>, Room>>,
    /// Turns at asking the service about visitors.
    pub(crate) questions: Turns,
}

/// One worker's visitors of one room.
pub(crate) struct Room {
    pub(crate) step: Option<Arc<RoomStep>>,
    /// The visitors that wait, by their key in the line and a serial number, because a ticket may have several streams.
    waiting: BTreeMap<(u64, u64), Visitor>,
    pub(crate) inside: LiveList<Visitor>,
    pub(crate) stepped: Rc<Notify>,
    /// The last serial number that was given out.
    serial: u64,
    /// Number of streams of this worker, including those in tasks.
    streams: usize,
    following: JoinHandle<()>,
}

impl Room {
    /// Puts a visitor among those that wait, at `key` in the line.
    pub(crate) fn wait(&mut self, key: u64, visitor: Visitor) {
        self.serial += 1;
        self.waiting.insert((key, self.serial), visitor);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl RoomStreams {
    /// Creates the streams of one worker, and adds them to its hub.
    pub(crate) fn new(hub: &Rc<Hub>, metrics: Metrics) -> Rc<Self> {
        let questions = Turns::new(QUESTIONS, metrics.sse.waiting_for("question"));
        let streams = Rc::new(Self { hub: hub.clone(), metrics, rooms: RefCell::default(), questions });
        hub.add(streams.clone());
        streams
    }

    /// Takes a visitor's stream over.
    pub(crate) fn admit(self: Rc<Self>, stream: Stream, hello: Bytes, visit: Visit) {
        let Visit { rooms, room, id, shown, address } = visit;
        let present = room.presence.join(id.number, ());
        self.enter_room(&room);
        let visitor = Visitor {
            stream,
            rooms,
            id,
            before: shown,
            status: None,
            last_update: None,
            pass_sent_for: None,
            generation: 0,
            present,
            address,
        };
        self.settle(visitor, hello);
    }

    /// Counts one more stream of a room. The first one makes this worker observe the room's steps.
    fn enter_room(self: &Rc<Self>, followed: &RoomFeed) {
        let mut rooms = self.rooms.borrow_mut();
        let room = rooms.entry(followed.name.clone()).or_insert_with(|| {
            let (streams, mut steps, name) =
                (Rc::downgrade(self), followed.steps.clone(), followed.name.clone());
            let step = steps.borrow_and_update().clone();
            Room {
                step,
                waiting: BTreeMap::new(),
                inside: LiveList::default(),
                stepped: Rc::default(),
                serial: 0,
                streams: 0,
                following: spawn_local(async move {
                    while steps.changed().await.is_ok() {
                        let Some(streams) = streams.upgrade() else { return };
                        let step = steps.borrow_and_update().clone();
                        streams.step_room(&name, step);
                    }
                }),
            }
        });
        room.streams += 1;
    }

    /// Counts the end of a visitor's stream, and forgets it.
    fn left_room(&self, name: &str, reason: CloseReason) {
        self.metrics.sse.ended(reason);
        self.forget(name);
    }

    /// Forgets one stream of a room. A room without streams is removed.
    pub(crate) fn forget(&self, name: &str) {
        let mut rooms = self.rooms.borrow_mut();
        if let Some(room) = rooms.get_mut(name) {
            room.streams -= 1;
            if room.streams == 0 {
                rooms.remove(name);
            }
        }
    }

    /// Takes in the next step of a room and writes what is new to the room's visitors.
    fn step_room(self: &Rc<Self>, name: &str, step: Option<Arc<RoomStep>>) {
        let mut rooms = self.rooms.borrow_mut();
        let Some(room) = rooms.get_mut(name) else { return };
        let before = std::mem::replace(&mut room.step, step);
        room.stepped.notify_waiters();
        let Some(step) = room.step.clone() else { return };
        let same = before.is_some_and(|before| {
            let opened = |step: &RoomStep| step.view.as_ref().map(|view| (view.opened, view.mode));
            before.generation == step.generation
                && before.status == step.status
                && opened(&before) == opened(&step)
        });
        if same {
            self.walk(room, &step, false);
        } else {
            // The visitors have other keys in the line, or all of them must receive something.
            self.resettle(room, &step);
        }
    }

    /// Writes what is new to the visitors that wait, from the front of the line: to all if `all`, otherwise to those
    /// near the front. If `all`, writes to the visitors inside as well. A visitor that is no longer where it was, or
    /// whose socket is full, leaves its list and becomes a task.
    fn walk(self: &Rc<Self>, room: &mut Room, step: &Arc<RoomStep>, all: bool) {
        let Some(view) = &step.view else { return };
        let (mut out, mut behind) = (Vec::new(), Vec::new());
        for (key, visitor) in &mut room.waiting {
            if !view.is_waiting(key.0) {
                out.push(*key);
                continue;
            }
            let near = view.rank(key.0).is_some_and(|rank| rank.position <= NEAR);
            if !all && !near {
                break;
            }
            let mut events = visitor.news(key.0, view, step, all);
            if events.is_empty() && all && self.hub.is_heartbeat_due(&visitor.stream) {
                events.heartbeat().id(&step.id);
            }
            match self.write_visitor(visitor, &events) {
                WriteOutcome::Complete => {}
                WriteOutcome::Closed => out.push(*key),
                WriteOutcome::Partial(rest) => behind.push((*key, rest)),
            }
        }
        for key in out {
            if let Some(visitor) = room.waiting.remove(&key) {
                self.settle(visitor, Bytes::new());
            }
        }
        for (key, rest) in behind {
            self.metrics.sse.fell_behind.inc();
            if let Some(visitor) = room.waiting.remove(&key) {
                self.settle(visitor, rest);
            }
        }
        if !all {
            return;
        }
        // Visitors that are still inside receive the status; visitors that are no longer inside leave the list.
        let removed = room.inside.write(&self.hub, |visitor| {
            let mut events = Events::default();
            visitor.tell_status(step.status, &mut events);
            if events.is_empty() && self.hub.is_heartbeat_due(&visitor.stream) {
                events.heartbeat();
            }
            (!events.is_empty()).then(|| visitor.stream.encode(&events.frame()))
        });
        for (visitor, outcome) in removed {
            match outcome {
                WriteOutcome::Partial(rest) => self.settle(visitor, rest),
                _ => self.settle(visitor, Bytes::new()),
            }
        }
        for visitor in room.inside.take_if(|visitor| !view.is_inside(visitor.id.number)) {
            self.settle(visitor, Bytes::new());
        }
    }

    /// Puts each visitor of a room where it belongs now. A visitor whose place is not certain becomes a task, which
    /// asks the service.
    fn resettle(self: &Rc<Self>, room: &mut Room, step: &Arc<RoomStep>) {
        let all: Vec<Visitor> =
            std::mem::take(&mut room.waiting).into_values().chain(room.inside.take_all()).collect();
        let closed = step.view.as_ref().is_none_or(|view| view.mode == Mode::Closed);
        for visitor in all {
            let known = !closed && visitor.generation == step.generation;
            let number = visitor.id.number;
            match step.view.as_ref().filter(|_| known) {
                Some(view)
                    if visitor.pass_sent_for.is_none() && view.is_waiting(view.bitmap_index(number)) =>
                {
                    room.wait(view.bitmap_index(number), visitor);
                }
                Some(view) if visitor.pass_sent_for.is_some() && view.is_inside(number) => {
                    room.inside.push(visitor);
                }
                _ => self.settle(visitor, Bytes::new()),
            }
        }
        self.walk(room, step, true);
    }

    /// Writes `events` to a visitor, as far as its socket takes them.
    pub(crate) fn write_visitor(&self, visitor: &mut Visitor, events: &Events) -> WriteOutcome {
        if events.is_empty() {
            return WriteOutcome::Complete;
        }
        let bytes = visitor.stream.encode(&events.frame());
        self.hub.deliver(&mut visitor.stream, bytes)
    }
}

impl Job for RoomStreams {
    fn sweep(self: Rc<Self>) {
        let mut over = Vec::new();
        for (name, room) in self.rooms.borrow_mut().iter_mut() {
            let waiting = room.waiting.extract_if(.., |_, visitor| visitor.stream.is_over());
            let mut ended: Vec<Visitor> = waiting.map(|(_, visitor)| visitor).collect();
            ended.extend(room.inside.remove_ended());
            over.extend(ended.into_iter().map(|visitor| (name.clone(), visitor)));
            if let Some(step) = room.step.clone() {
                self.walk(room, &step, true);
            }
        }
        for (name, visitor) in over {
            let reason = self.hub.close_swept(visitor.stream);
            drop(visitor.present);
            self.left_room(&name, reason);
        }
    }

    fn drain(&self) {
        for room in self.rooms.borrow_mut().values_mut() {
            for visitor in room.waiting.values_mut() {
                self.hub.drain_stream(&mut visitor.stream);
            }
            room.inside.drain(&self.hub);
        }
    }
}
