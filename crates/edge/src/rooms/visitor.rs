//! One visitor of a waiting room: what it has received, and which events it receives next.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::json;
use tonic::Status as Refused;
use tutti_feed::{Cursor, Position};
use tutti_model::queue::{Ticket, TicketId};
use tutti_model::{Mode, TicketState};

use crate::following::status::Status;
use crate::http::upstream::reason;
use crate::rooms::client::position;
use crate::rooms::follower::{RoomStep, Rooms};
use crate::rooms::presence::Present;
use crate::rooms::state::{Rank, RoomView};
use tutti_model::events::{
    END, QUEUE_ADMITTED, QUEUE_CLOSED, QUEUE_LOST, QUEUE_UPDATE, RESET, ResetReason, reset_data,
};
use tutti_sse::events::Events;
use tutti_sse::live::Member;
use tutti_sse::stream::Stream;

/// One visitor's stream.
pub(crate) struct Visitor {
    pub(crate) stream: Stream,
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) id: TicketId,
    /// The version of the room that the client had been shown before it came here, until an answer was compared with
    /// it.
    pub(crate) before: Option<Position>,
    /// The status that the visitor received last.
    pub(crate) status: Option<Status>,
    /// The last `queue_update` that the visitor received.
    pub(crate) last_update: Option<LastUpdate>,
    /// The ticket's state when the pass was last sent. `None` while the visitor waits.
    pub(crate) pass_sent_for: Option<TicketState>,
    /// [`RoomStep::generation`] under which the service was last asked for the ticket.
    pub(crate) generation: u64,
    pub(crate) present: Present,
    /// The client's network, which owns the visitor's turns at asking the service.
    pub(crate) address: Option<IpAddr>,
}

impl Member for Visitor {
    fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }
}

/// What a `queue_update` said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastUpdate {
    pub(crate) rank: Option<Rank>,
    pub(crate) mode: Mode,
    /// Before the opening: the number of visitors that wait, and when the room opens, in milliseconds since 1970.
    pub(crate) early: Option<(u64, u64)>,
}

/// Where a visitor belongs.
pub(crate) enum Settled {
    Waiting,
    Inside,
}

impl Visitor {
    /// Returns the events that are new to a visitor that waits at `key`: if `all`, whenever something that it receives
    /// has changed, otherwise only if its position or the status has.
    pub(crate) fn news(&mut self, key: u64, view: &RoomView, step: &RoomStep, all: bool) -> Events {
        let mut events = Events::default();
        self.tell_status(step.status, &mut events);
        let rank = view.rank(key);
        let early = rank.is_none().then(|| (view.waiting(), view.opens_at_ms));
        let update = LastUpdate { rank, mode: view.mode, early };
        let position_of = |update: LastUpdate| update.rank.map(|rank| rank.position);
        let moved = self.last_update.map(position_of) != Some(position_of(update));
        if moved || (all && self.last_update != Some(update)) {
            self.last_update = Some(update);
            let (ticket, version) = (self.id.number, view.version.seq);
            // Formatted by hand, because it is written for each visitor each second.
            let data = match rank {
                Some(Rank { position, behind }) => {
                    let ahead = position - 1;
                    let eta = view.eta_seconds(position).map_or("null".to_owned(), |eta| eta.to_string());
                    format!(
                        r#"{{"ticket":{ticket},"position":{position},"ahead":{ahead},"behind":{behind},"etaSeconds":{eta},"version":{version}}}"#
                    )
                }
                None => {
                    let (waiting, opens_at_ms) = (view.waiting(), view.opens_at_ms);
                    format!(
                        r#"{{"ticket":{ticket},"position":null,"ahead":null,"behind":null,"etaSeconds":null,"version":{version},"waiting":{waiting},"opensAt":{opens_at_ms}}}"#
                    )
                }
            };
            events.event(QUEUE_UPDATE, &data).id(&step.id);
        }
        events
    }

    /// Appends the event `status`, if the visitor has not received this status yet.
    pub(crate) fn tell_status(&mut self, status: Status, events: &mut Events) {
        if self.status.replace(status) != Some(status) {
            status.write(events);
        }
    }

    /// Appends the events that follow from the service's answer about the ticket, and returns where the visitor
    /// belongs. Returns `None` if the stream is over because the ticket is gone.
    pub(crate) fn hear(&mut self, ticket: &Ticket, events: &mut Events) -> Option<Settled> {
        let number = self.id.number;
        // Redis itself is behind what the client has been shown, so it lost something.
        let now = position(ticket.version);
        if let Some(before) = self.before.take()
            && !now.covers(before)
        {
            // The reset carries the new id, because no other event that a visitor inside receives has one.
            events
                .event(RESET, &reset_data(ResetReason::HistoryChanged))
                .id(&Cursor(vec![Some(now)]).to_text());
        }
        match ticket.state() {
            TicketState::Waiting => {
                self.pass_sent_for = None;
                Some(Settled::Waiting)
            }
            state @ (TicketState::Admitted | TicketState::Claimed) => {
                if self.pass_sent_for.replace(state) != Some(state) {
                    let by = if state == TicketState::Admitted { "claimBy" } else { "until" };
                    let data = json!({"ticket": number, "pass": ticket.pass, by: ticket.until_ms});
                    events.event(QUEUE_ADMITTED, &data.to_string());
                }
                Some(Settled::Inside)
            }
            TicketState::Gone | TicketState::Unknown => {
                let reason = ticket.reason().as_word();
                events.event(QUEUE_LOST, &json!({"ticket": number, "reason": reason}).to_string());
                events.event(END, r#"{"reason":"queue_lost"}"#);
                None
            }
        }
    }

    /// Appends the last events of a stream whose ticket or room the service does not know. `status` says which.
    pub(crate) fn tell_end(&self, status: &Refused, events: &mut Events) {
        if reason(status) == Some("closed") {
            events.event(QUEUE_CLOSED, &json!({"ticket": self.id.number}).to_string());
            events.event(END, r#"{"reason":"queue_closed"}"#);
        } else {
            let data = json!({"ticket": self.id.number, "reason": "forgotten"});
            events.event(QUEUE_LOST, &data.to_string());
            events.event(END, r#"{"reason":"queue_lost"}"#);
        }
    }
}
