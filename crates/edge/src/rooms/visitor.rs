//! One visitor of a waiting room: what it has been told, and what it is to be told next.

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
    /// What the client was shown before it came here.
    pub(crate) before: Option<Position>,
    pub(crate) status: Option<Status>,
    /// What it was told of its place.
    pub(crate) told: Option<LastUpdate>,
    /// The pass was sent, in this state.
    pub(crate) passed: Option<TicketState>,
    pub(crate) generation: u64,
    pub(crate) present: Present,
    pub(crate) address: Option<IpAddr>,
}

impl Member for Visitor {
    fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }
}

/// What a visitor is told of a place in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastUpdate {
    pub(crate) rank: Option<Rank>,
    pub(crate) mode: Mode,
    /// Until the opening: how many wait, and when it is.
    pub(crate) early: Option<(u64, u64)>,
}

/// Where a visitor belongs.
pub(crate) enum Settled {
    Waiting,
    Inside,
}

impl Visitor {
    /// What is new to one who waits; of its position only, or all that it is told.
    pub(crate) fn news(&mut self, key: u64, view: &RoomView, step: &RoomStep, all: bool) -> Events {
        let mut events = Events::default();
        self.tell_status(step.status, &mut events);
        let rank = view.rank(key);
        let early = rank.is_none().then(|| (view.waiting(), view.opens_at_ms));
        let told = LastUpdate { rank, mode: view.mode, early };
        let position_of = |told: LastUpdate| told.rank.map(|rank| rank.position);
        let moved = self.told.map(position_of) != Some(position_of(told));
        if moved || (all && self.told != Some(told)) {
            self.told = Some(told);
            let (ticket, version) = (self.id.number, view.version.seq);
            // By hand, for it is written for each visitor each second.
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

    pub(crate) fn tell_status(&mut self, status: Status, events: &mut Events) {
        if self.status.replace(status) != Some(status) {
            status.write(events);
        }
    }

    /// What an answer means for this visitor; `None` if its stream is over.
    pub(crate) fn hear(&mut self, ticket: &Ticket, events: &mut Events) -> Option<Settled> {
        let number = self.id.number;
        // Redis itself is behind what the client was shown: it lost something.
        let now = position(ticket.version);
        if let Some(before) = self.before.take()
            && !now.covers(before)
        {
            // With another id: nothing else that is told to one who is inside has any.
            events
                .event(RESET, &reset_data(ResetReason::HistoryChanged))
                .id(&Cursor(vec![Some(now)]).to_text());
        }
        match ticket.state() {
            TicketState::Waiting => {
                self.passed = None;
                Some(Settled::Waiting)
            }
            state @ (TicketState::Admitted | TicketState::Claimed) => {
                if self.passed.replace(state) != Some(state) {
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

    /// The service knows no such ticket, or no such room any more.
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
