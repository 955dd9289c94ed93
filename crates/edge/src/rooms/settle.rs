//! Finds out where a visitor belongs, and puts it there. Asks the service for the ticket, sends the answer to the
//! visitor, and waits until this edge has reached the version of the room that the answer was given at.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tonic::Status as Refused;
use tutti_feed::Position;
use tutti_model::queue::Ticket;
use tutti_sse::events::Events;
use tutti_sse::limits::Owner;
use tutti_sse::stream::{CloseReason, WriteOutcome};

use crate::following::status::Status;
use crate::http::upstream::is_passing;
use crate::rooms::client::position;
use crate::rooms::follower::RoomStep;
use crate::rooms::visitor::{Settled, Visitor};
use crate::rooms::visitors::RoomStreams;

/// Longest pause between two questions about the same visitor.
const RETRY: Duration = Duration::from_secs(1);
/// How long a visitor waits for this edge to reach the version of an answer. After it the service is asked again.
const CATCH_UP: Duration = Duration::from_secs(10);

/// Why a visitor's stream is over.
enum Stop {
    /// The client is gone, or a frame was written only in part. Nothing more can be written.
    Cut(CloseReason),
    /// The stream ends between two frames, so its planned end can be written.
    Close(CloseReason),
}

impl From<CloseReason> for Stop {
    fn from(end: CloseReason) -> Self {
        Self::Cut(end)
    }
}

impl RoomStreams {
    /// Starts a task that writes `rest` to a visitor, finds out where the visitor belongs, and puts it there.
    pub(crate) fn settle(self: &Rc<Self>, visitor: Visitor, rest: Bytes) {
        let streams = self.clone();
        self.hub.spawn_behind(async move {
            let name = visitor.id.room.clone();
            let Err((visitor, stop)) = streams.settle_in(visitor, rest).await else { return Ok(()) };
            let reason = match stop {
                Stop::Cut(reason) => reason,
                Stop::Close(reason) => {
                    let mut stream = visitor.stream;
                    stream.planned_end = reason;
                    streams.hub.close(stream)
                }
            };
            drop(visitor.present);
            streams.forget(&name);
            Err(reason)
        });
    }

    /// Writes `rest` to a visitor, and repeats finding out and placing until the visitor is in a list.
    ///
    /// # Errors
    /// If the stream ends: the visitor, and how the stream ends.
    async fn settle_in(
        self: &Rc<Self>,
        mut visitor: Visitor,
        mut rest: Bytes,
    ) -> Result<(), (Visitor, Stop)> {
        loop {
            let settled = match self.hub.write(&mut visitor.stream, std::mem::take(&mut rest)).await {
                Ok(()) => self.ask_service(&mut visitor).await,
                Err(reason) => Err(reason.into()),
            };
            match settled {
                Ok(settled) => match self.place(visitor, &settled) {
                    Ok(()) => return Ok(()),
                    Err(back) => visitor = *back,
                },
                Err(stop) => return Err((visitor, stop)),
            }
        }
    }

    /// Puts a visitor into the list where it belongs.
    ///
    /// # Errors
    /// If the room is gone or the client has left: the visitor.
    fn place(self: &Rc<Self>, mut visitor: Visitor, settled: &Settled) -> Result<(), Box<Visitor>> {
        let mut rooms = self.rooms.borrow_mut();
        let Some(room) = rooms.get_mut(&*visitor.id.room) else { return Err(Box::new(visitor)) };
        let Some(step) = room.step.clone() else { return Err(Box::new(visitor)) };
        let Some(view) = step.view.as_ref() else { return Err(Box::new(visitor)) };
        match settled {
            Settled::Inside => room.inside.push(visitor),
            Settled::Waiting => {
                let key = view.bitmap_index(visitor.id.number);
                let events = visitor.news(key, view, &step, true);
                match self.write_visitor(&mut visitor, &events) {
                    WriteOutcome::Complete => {
                        room.wait(key, visitor);
                    }
                    WriteOutcome::Partial(rest) => {
                        self.metrics.sse.fell_behind.inc();
                        self.settle(visitor, rest);
                    }
                    WriteOutcome::Closed => return Err(Box::new(visitor)),
                }
            }
        }
        Ok(())
    }

    /// Asks the service for a visitor's ticket, and sends the answer, until this edge has reached the answer and agrees
    /// with it. Returns where the visitor belongs.
    ///
    /// # Errors
    /// If the stream ends meanwhile, or with the answer.
    async fn ask_service(&self, visitor: &mut Visitor) -> Result<Settled, Stop> {
        let mut misses = 0;
        loop {
            if self.hub.is_due(&mut visitor.stream) {
                return Err(Stop::Close(visitor.stream.planned_end));
            }
            self.hub.keep_alive(&mut visitor.stream, "").await?;
            // Read before the service is asked, so that a change in between is not missed.
            let generation = self.room_step(&visitor.id.room).map_or(0, |step| step.generation);
            let answer = self.ask(visitor).await?;
            let mut events = Events::default();
            match answer {
                Err(status) if is_passing(&status) => {
                    visitor.tell_status(Status::Stale { since_ms: None }, &mut events);
                    self.write_events(visitor, &events).await?;
                    self.hub.pause(&mut visitor.stream, Instant::now() + RETRY).await;
                }
                Err(status) => {
                    visitor.tell_end(&status, &mut events);
                    self.write_events(visitor, &events).await?;
                    return Err(Stop::Close(CloseReason::Over));
                }
                Ok(ticket) => {
                    let Some(settled) = visitor.hear(&ticket, &mut events) else {
                        self.write_events(visitor, &events).await?;
                        return Err(Stop::Close(CloseReason::Over));
                    };
                    self.write_events(visitor, &events).await?;
                    visitor.generation = generation;
                    if self.caught_up(visitor, position(ticket.version), &settled).await? {
                        return Ok(settled);
                    }
                    // The visitor has moved on since, or this edge disagrees with the answer. The pause keeps this from
                    // becoming a busy loop.
                    misses += 1;
                    let pause = (RETRY / 10 * misses).min(RETRY);
                    self.hub.pause(&mut visitor.stream, Instant::now() + pause).await;
                }
            }
        }
    }

    /// Asks the service for a visitor's ticket, in the turn of the visitor's network. Keeps the stream alive meanwhile.
    ///
    /// # Errors
    /// If the stream ends meanwhile.
    async fn ask(&self, visitor: &mut Visitor) -> Result<Result<Ticket, Refused>, Stop> {
        let Visitor { stream, rooms, id, address, .. } = visitor;
        let owner = address.map_or(Owner::All, Owner::Address);
        let asking = async || {
            let _turn = self.questions.take(owner.clone()).await;
            rooms.queue.ask(id.clone(), |mut q, id| async move { q.get_ticket(id).await }).await
        };
        let answer = self.hub.meanwhile(stream, asking).await?;
        answer.ok_or(Stop::Close(stream.planned_end))
    }

    /// Waits until this edge has reached the version `answer`. Returns whether its view of the room then agrees with
    /// `settled`, and false if the wait takes longer than [`CATCH_UP`] or the stream's time is over.
    ///
    /// # Errors
    /// Why the stream ended meanwhile.
    async fn caught_up(
        &self,
        visitor: &mut Visitor,
        answer: Position,
        settled: &Settled,
    ) -> Result<bool, CloseReason> {
        let until = Instant::now() + CATCH_UP;
        loop {
            let Some(stepped) = self.rooms.borrow().get(&*visitor.id.room).map(|r| r.stepped.clone()) else {
                return Ok(false);
            };
            if let Some(step) = self.room_step(&visitor.id.room)
                && let Some(view) = &step.view
                && view.version.covers(answer)
            {
                let number = visitor.id.number;
                return Ok(step.generation == visitor.generation
                    && match settled {
                        Settled::Waiting => view.is_waiting(view.bitmap_index(number)),
                        Settled::Inside => view.is_inside(number),
                    });
            }
            if Instant::now() >= until || visitor.stream.ends_at <= Instant::now() {
                return Ok(false);
            }
            tokio::select! {
                () = stepped.notified() => {}
                () = self.hub.pause(&mut visitor.stream, until) => {}
            }
            self.hub.keep_alive(&mut visitor.stream, "").await?;
        }
    }

    /// Returns the last step of a room, if there is one.
    fn room_step(&self, name: &str) -> Option<Arc<RoomStep>> {
        self.rooms.borrow().get(name)?.step.clone()
    }

    /// Writes events to a visitor, however long the client takes, within the bounds of its stream.
    ///
    /// # Errors
    /// Why the stream ended meanwhile.
    async fn write_events(&self, visitor: &mut Visitor, events: &Events) -> Result<(), CloseReason> {
        match self.write_visitor(visitor, events) {
            WriteOutcome::Complete => Ok(()),
            WriteOutcome::Closed => Err(CloseReason::Left),
            WriteOutcome::Partial(rest) => self.hub.write(&mut visitor.stream, rest).await,
        }
    }
}
