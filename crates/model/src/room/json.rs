//! The JSON forms of rooms, tickets, settings and events.

use serde_json::{Value, json};

use crate::queue::{Room, Ticket};
use crate::room_event::Event;
use crate::{GoneReason, RoomEvent, RoomSettings, TicketState};

/// Returns the JSON object of a change of a room, as the relay writes it to Kafka.
///
/// Returns `None` for an event that is not a change: a pulse, an empty record, or an event of a later version.
pub fn event_to_json(room: &str, epoch: u32, version: u64, time_us: u64, event: &RoomEvent) -> Option<Value> {
    let mut all = json!({"room": room, "epoch": epoch, "version": version, "timeUs": time_us});
    let more = match event.event.as_ref()? {
        Event::Joined(e) => json!({"type": "joined", "ticket": e.ticket}),
        Event::Admitted(e) => json!({
            "type": "admitted", "ticket": e.ticket, "place": e.place, "claimBy": e.claim_by_ms,
            "waitedMs": e.waited_ms,
        }),
        Event::Claimed(e) => json!({"type": "claimed", "ticket": e.ticket, "until": e.until_ms}),
        Event::Gone(e) => {
            let kind = match e.reason() {
                GoneReason::NoShow | GoneReason::SessionOver | GoneReason::Away => "expired",
                _ => "left",
            };
            json!({"type": kind, "ticket": e.ticket, "reason": e.reason().as_word()})
        }
        Event::Settings(e) => json!({"type": "settings", "settings": settings_to_json(e)}),
        Event::Mode(e) => json!({"type": "mode", "mode": e.mode().as_word()}),
        Event::Opened(e) => json!({"type": "opened", "early": e.early, "seed": e.seed}),
        Event::Pulse(_) => return None,
    };
    if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
        all.extend(more);
    }
    Some(all)
}

/// Returns the JSON object of the settings of a room, as the HTTP interface and the relay write it.
pub fn settings_to_json(settings: &RoomSettings) -> Value {
    json!({
        "maxActive": settings.max_active,
        "admitPerSecond": settings.admit_per_second,
        "claimSeconds": settings.claim_seconds,
        "sessionSeconds": settings.session_seconds,
        "passSeconds": settings.pass_seconds,
        "graceSeconds": settings.grace_seconds,
        "opensAt": (settings.opens_at_ms > 0).then_some(settings.opens_at_ms),
        "seedSha256": (settings.opens_at_ms > 0).then_some(&settings.seed_sha256),
    })
}

/// Returns the JSON object of a ticket, as the HTTP interface writes it. The token is not part of it.
pub fn ticket_to_json(ticket: &Ticket) -> Value {
    let id = ticket.id.clone().unwrap_or_default();
    let version = ticket.version.unwrap_or_default();
    let mut body = json!({"room": id.room, "ticket": id.number, "version": version.seq});
    let more = match ticket.state() {
        TicketState::Waiting => {
            let position = (ticket.position > 0).then_some(ticket.position);
            json!({
                "state": "waiting",
                "position": position,
                "ahead": position.map(|position| position - 1),
                "behind": position.map(|position| ticket.waiting.saturating_sub(position)),
                "etaSeconds": ticket.eta_seconds,
            })
        }
        TicketState::Admitted => {
            json!({"state": "admitted", "pass": ticket.pass, "claimBy": ticket.until_ms})
        }
        TicketState::Claimed => json!({"state": "claimed", "pass": ticket.pass, "until": ticket.until_ms}),
        TicketState::Gone | TicketState::Unknown => {
            json!({"state": "gone", "reason": ticket.reason().as_word()})
        }
    };
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    body
}

/// Returns the JSON object of a room, as the HTTP interface writes it for administrators.
pub fn room_to_json(room: &Room) -> Value {
    let figures = room.figures.unwrap_or_default();
    json!({
        "room": room.room,
        "mode": room.mode().as_word(),
        "opened": room.opened,
        "settings": room.settings.as_ref().map(settings_to_json),
        "seed": (!room.seed.is_empty()).then_some(&room.seed),
        "version": room.version.unwrap_or_default().seq,
        "figures": {
            "joined": figures.joined,
            "waiting": figures.waiting,
            "active": figures.active,
            "admitted": figures.admitted,
            "claimed": figures.claimed,
            "left": figures.left,
            "noShows": figures.no_shows,
            "expired": figures.expired,
            "away": figures.away,
            "admittedPerSecond": figures.pace_milli as f64 / 1000.0,
            "longestWaitSeconds": figures.longest_wait_ms as f64 / 1000.0,
            "unrelayed": figures.unrelayed,
        },
    })
}
