//! A worker's streams of waiting rooms.
//!
//! Who waits lies in the order of the line. At each step of a room those near the front hear of it at
//! once; once a second all are looked at. What a visitor is told is a rank in the room's bitmap: a
//! question in memory. Only who is new, or no longer where it was, is asked after at the service.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::rt::spawn;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::Status as Refused;
use tutti_feed::Position;
use tutti_model::Mode;
use tutti_model::queue::{Ticket, TicketId};

use crate::http::upstream::is_passing;
use crate::map::tick::Status;
use crate::rooms::client::position;
use crate::rooms::follower::{Followed, RoomStep, Rooms};
use crate::rooms::presence::Present;
use crate::rooms::visitor::{Settled, Visitor};
use crate::sse::frame::Events;
use crate::sse::hub::Hub;
use crate::sse::limits::Whose;
use crate::sse::stream::{End, Stream, Written};

/// Up to this position a visitor hears of each change at once.
const NEAR: u64 = 20;
/// Between two questions about the same visitor.
const RETRY: Duration = Duration::from_secs(1);
/// An edge that has not caught up with an answer after so long asks again.
const CATCH_UP: Duration = Duration::from_secs(10);

/// On what terms a visitor gets a stream.
pub(crate) struct Visit {
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) room: Arc<Followed>,
    pub(crate) id: TicketId,
    /// What the client was shown before.
    pub(crate) shown: Option<Position>,
    /// The client's network, whose visitors share their turns at being asked after.
    pub(crate) address: Option<IpAddr>,
}

/// The visitors of all rooms.
#[derive(Default)]
pub(crate) struct Lobby {
    rooms: BTreeMap<Arc<str>, Room>,
}

/// The visitors of one room.
struct Room {
    step: Option<Arc<RoomStep>>,
    /// By what stands for them in the line, and by their order of coming, for one may come twice.
    waiting: BTreeMap<(u64, u64), Visitor>,
    inside: Vec<Visitor>,
    stepped: Rc<Notify>,
    /// Tells visitors with the same key apart.
    serial: u64,
    /// Streams here, those in tasks too.
    streams: usize,
    following: JoinHandle<()>,
}

impl Room {
    fn wait(&mut self, key: u64, visitor: Visitor) {
        self.serial += 1;
        self.waiting.insert((key, self.serial), visitor);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.following.abort();
    }
}

/// Why a visitor's stream is over.
enum Stop {
    /// Its client is gone, or a frame is half written.
    Cut(End),
    /// It was to end, between two frames.
    Close(End),
}

impl From<End> for Stop {
    fn from(end: End) -> Self {
        Self::Cut(end)
    }
}

impl Hub {
    /// Takes a visitor's stream over, its response head written.
    pub(crate) fn admit_visitor(self: Rc<Self>, stream: Stream, hello: Bytes, visit: Visit) {
        let Visit { rooms, room, id, shown, address } = visit;
        let present = Present::new(room.clone(), id.number);
        self.enter_room(&room);
        let visitor = Visitor {
            stream,
            rooms,
            id,
            before: shown,
            status: None,
            told: None,
            passed: None,
            generation: 0,
            present,
            address,
        };
        self.settle(visitor, hello);
    }

    fn enter_room(self: &Rc<Self>, followed: &Followed) {
        let mut lobby = self.lobby.borrow_mut();
        let room = lobby.rooms.entry(followed.name.clone()).or_insert_with(|| {
            let (hub, mut steps, name) = (Rc::downgrade(self), followed.steps.clone(), followed.name.clone());
            let step = steps.borrow_and_update().clone();
            Room {
                step,
                waiting: BTreeMap::new(),
                inside: Vec::new(),
                stepped: Rc::default(),
                serial: 0,
                streams: 0,
                following: spawn(async move {
                    while steps.changed().await.is_ok() {
                        let Some(hub) = hub.upgrade() else { return };
                        let step = steps.borrow_and_update().clone();
                        hub.step_room(&name, step);
                    }
                }),
            }
        });
        room.streams += 1;
    }

    /// A visitor's stream has ended.
    fn left_room(&self, name: &str, end: End) {
        self.ended(end);
        let mut lobby = self.lobby.borrow_mut();
        if let Some(room) = lobby.rooms.get_mut(name) {
            room.streams -= 1;
            if room.streams == 0 {
                lobby.rooms.remove(name);
            }
        }
    }

    /// A room moved on.
    fn step_room(self: &Rc<Self>, name: &str, step: Option<Arc<RoomStep>>) {
        let mut lobby = self.lobby.borrow_mut();
        let Some(room) = lobby.rooms.get_mut(name) else { return };
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
            // Other keys stand for those who wait, or all are to be told.
            self.resettle(room, &step);
        }
    }

    /// Once a second, of each room: ends what is over, finds who left, tells all where they are.
    pub(crate) fn sweep_rooms(self: &Rc<Self>) {
        let mut gone = Vec::new();
        {
            let mut lobby = self.lobby.borrow_mut();
            for (name, room) in &mut lobby.rooms {
                let waiting = room.waiting.extract_if(.., |_, visitor| visitor.stream.is_over());
                let mut ended: Vec<Visitor> = waiting.map(|(_, visitor)| visitor).collect();
                ended.extend(room.inside.extract_if(.., |visitor| visitor.stream.is_over()));
                gone.extend(ended.into_iter().map(|visitor| (name.clone(), visitor)));
                if let Some(step) = room.step.clone() {
                    self.walk(room, &step, true);
                }
            }
        }
        for (name, visitor) in gone {
            let end = self.close(visitor.stream);
            drop(visitor.present);
            self.left_room(&name, end);
        }
    }

    /// Gives each stream an end within the drain window.
    pub(crate) fn drain_rooms(&self) {
        let mut lobby = self.lobby.borrow_mut();
        for room in lobby.rooms.values_mut() {
            for visitor in room.waiting.values_mut().chain(&mut room.inside) {
                visitor.stream.drain(self.drain_end());
            }
        }
    }

    /// Looks at those who wait, from the front: all, or as far as is near; and, of all, at those
    /// inside.
    fn walk(self: &Rc<Self>, room: &mut Room, step: &Arc<RoomStep>, all: bool) {
        let Some(view) = &step.view else { return };
        let (mut out, mut behind) = (Vec::new(), Vec::new());
        let heartbeat = self.config.heartbeat;
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
            if events.is_empty() && all && visitor.stream.last_write.elapsed() >= heartbeat {
                events.heartbeat().id(&step.id);
            }
            match self.write_visitor(visitor, &events) {
                Written::All => {}
                Written::Gone => out.push(*key),
                Written::Rest(rest) => behind.push((*key, rest)),
            }
        }
        for key in out {
            if let Some(visitor) = room.waiting.remove(&key) {
                self.clone().settle(visitor, Bytes::new());
            }
        }
        for (key, rest) in behind {
            self.metrics.fell_behind.inc();
            if let Some(visitor) = room.waiting.remove(&key) {
                self.clone().settle(visitor, rest);
            }
        }
        if !all {
            return;
        }
        let mut at = 0;
        while let Some(visitor) = room.inside.get_mut(at) {
            let mut events = Events::default();
            visitor.tell_status(step.status, &mut events);
            if events.is_empty() && visitor.stream.last_write.elapsed() >= heartbeat {
                events.heartbeat();
            }
            let inside = view.is_inside(visitor.id.number);
            match self.write_visitor(visitor, &events) {
                Written::All if inside => at += 1,
                Written::Rest(rest) => self.clone().settle(room.inside.swap_remove(at), rest),
                _ => self.clone().settle(room.inside.swap_remove(at), Bytes::new()),
            }
        }
    }

    /// Sends all visitors of a room to where they belong now.
    fn resettle(self: &Rc<Self>, room: &mut Room, step: &Arc<RoomStep>) {
        let all: Vec<Visitor> =
            std::mem::take(&mut room.waiting).into_values().chain(std::mem::take(&mut room.inside)).collect();
        let closed = step.view.as_ref().is_none_or(|view| view.mode == Mode::Closed);
        for visitor in all {
            let known = !closed && visitor.generation == step.generation;
            let number = visitor.id.number;
            match step.view.as_ref().filter(|_| known) {
                Some(view) if visitor.passed.is_none() && view.is_waiting(view.key_of(number)) => {
                    room.wait(view.key_of(number), visitor);
                }
                Some(view) if visitor.passed.is_some() && view.is_inside(number) => {
                    room.inside.push(visitor);
                }
                _ => self.clone().settle(visitor, Bytes::new()),
            }
        }
        self.walk(room, step, true);
    }

    fn write_visitor(&self, visitor: &mut Visitor, events: &Events) -> Written {
        if events.is_empty() {
            return Written::All;
        }
        let bytes = visitor.stream.encode(&events.frame());
        self.deliver(&mut visitor.stream, bytes)
    }

    /// Finds out where a visitor belongs, as a task of its own, and puts it there.
    fn settle(self: Rc<Self>, mut visitor: Visitor, mut rest: Bytes) {
        spawn(async move {
            self.metrics.behind.inc();
            let name = visitor.id.room.clone();
            let stop = loop {
                let settled = match self.write(&mut visitor.stream, std::mem::take(&mut rest)).await {
                    Ok(()) => self.find_out(&mut visitor).await,
                    Err(end) => Err(end.into()),
                };
                match settled {
                    Ok(settled) => match self.place(visitor, &settled) {
                        Ok(()) => {
                            self.metrics.behind.dec();
                            return;
                        }
                        Err(back) => visitor = *back,
                    },
                    Err(stop) => break stop,
                }
            };
            self.metrics.behind.dec();
            let end = match stop {
                Stop::Cut(end) => end,
                Stop::Close(end) => {
                    visitor.stream.end = end;
                    visitor.stream.close(self.retry())
                }
            };
            drop(visitor.present);
            self.left_room(&name, end);
        });
    }

    /// Puts a visitor where it belongs, if the room is still as it was found.
    fn place(self: &Rc<Self>, mut visitor: Visitor, settled: &Settled) -> Result<(), Box<Visitor>> {
        let mut lobby = self.lobby.borrow_mut();
        let Some(room) = lobby.rooms.get_mut(&*visitor.id.room) else { return Err(Box::new(visitor)) };
        let Some(step) = room.step.clone() else { return Err(Box::new(visitor)) };
        let Some(view) = step.view.as_ref() else { return Err(Box::new(visitor)) };
        match settled {
            Settled::Inside => room.inside.push(visitor),
            Settled::Waiting => {
                let key = view.key_of(visitor.id.number);
                let events = visitor.news(key, view, &step, true);
                match self.write_visitor(&mut visitor, &events) {
                    Written::All => {
                        room.wait(key, visitor);
                    }
                    Written::Rest(rest) => {
                        self.metrics.fell_behind.inc();
                        self.clone().settle(visitor, rest);
                    }
                    Written::Gone => return Err(Box::new(visitor)),
                }
            }
        }
        Ok(())
    }

    /// Asks after a visitor until this edge knows as much as the answer.
    async fn find_out(&self, visitor: &mut Visitor) -> Result<Settled, Stop> {
        let mut misses = 0;
        loop {
            if self.draining.is_cancelled() {
                visitor.stream.drain(self.drain_end());
            }
            if visitor.stream.ends_at <= Instant::now() {
                return Err(Stop::Close(visitor.stream.end));
            }
            self.keep_alive(&mut visitor.stream).await?;
            // Before the answer, so that what comes between is not missed.
            let generation = self.room_step(&visitor.id.room).map_or(0, |step| step.generation);
            let answer = self.ask(visitor).await?;
            let mut events = Events::default();
            match answer {
                Err(status) if is_passing(&status) => {
                    visitor.tell_status(Status::Stale { since_ms: None }, &mut events);
                    self.write_events(visitor, &events).await?;
                    self.pause(&mut visitor.stream, Instant::now() + RETRY).await;
                }
                Err(status) => {
                    visitor.tell_end(&status, &mut events);
                    self.write_events(visitor, &events).await?;
                    return Err(Stop::Close(End::Over));
                }
                Ok(ticket) => {
                    let Some(settled) = visitor.hear(&ticket, &mut events) else {
                        self.write_events(visitor, &events).await?;
                        return Err(Stop::Close(End::Over));
                    };
                    self.write_events(visitor, &events).await?;
                    visitor.generation = generation;
                    if self.caught_up(visitor, position(ticket.version), &settled).await? {
                        return Ok(settled);
                    }
                    // It has moved on since, or we see it otherwise: not to be asked in a loop.
                    misses += 1;
                    let pause = (RETRY / 10 * misses).min(RETRY);
                    self.pause(&mut visitor.stream, Instant::now() + pause).await;
                }
            }
        }
    }

    /// Asks after a visitor, whose stream is kept alive meanwhile.
    async fn ask(&self, visitor: &mut Visitor) -> Result<Result<Ticket, Refused>, Stop> {
        let Visitor { stream, rooms, id, address, .. } = visitor;
        let whose = address.map_or(Whose::All, Whose::Address);
        let asking = async || {
            let _turn = self.questions.take(whose.clone()).await;
            rooms.queue.ask(id.clone(), |mut q, id| async move { q.get_ticket(id).await }).await
        };
        let answer = self.meanwhile(stream, asking).await?;
        answer.ok_or(Stop::Close(stream.end))
    }

    /// Waits until this edge has what the answer had. Whether it then says the same.
    async fn caught_up(
        &self,
        visitor: &mut Visitor,
        answer: Position,
        settled: &Settled,
    ) -> Result<bool, End> {
        let until = Instant::now() + CATCH_UP;
        loop {
            let Some(stepped) = self.lobby.borrow().rooms.get(&*visitor.id.room).map(|r| r.stepped.clone())
            else {
                return Ok(false);
            };
            if let Some(step) = self.room_step(&visitor.id.room)
                && let Some(view) = &step.view
                && view.version.covers(answer)
            {
                let number = visitor.id.number;
                return Ok(step.generation == visitor.generation
                    && match settled {
                        Settled::Waiting => view.is_waiting(view.key_of(number)),
                        Settled::Inside => view.is_inside(number),
                    });
            }
            if Instant::now() >= until || visitor.stream.ends_at <= Instant::now() {
                return Ok(false);
            }
            tokio::select! {
                () = stepped.notified() => {}
                () = self.pause(&mut visitor.stream, until) => {}
            }
            self.keep_alive(&mut visitor.stream).await?;
        }
    }

    fn room_step(&self, name: &str) -> Option<Arc<RoomStep>> {
        self.lobby.borrow().rooms.get(name)?.step.clone()
    }

    async fn write_events(&self, visitor: &mut Visitor, events: &Events) -> Result<(), End> {
        match self.write_visitor(visitor, events) {
            Written::All => Ok(()),
            Written::Gone => Err(End::Left),
            Written::Rest(rest) => self.write(&mut visitor.stream, rest).await,
        }
    }
}
