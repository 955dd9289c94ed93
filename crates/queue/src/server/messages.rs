//! The messages of rooms and tickets.

use tutti_model::RoomSettings;
use tutti_model::queue::{Figures, Room, Ticket, TicketId, Version};
use tutti_model::room::eta_seconds;

use crate::rooms::{Phase, StoredRoom, TicketReply};
use crate::signer::{Signer, TicketRef};

/// Returns the message of a room.
pub(super) fn room_message(room: String, stored: &StoredRoom) -> Room {
    let state = &stored.state;
    let opened = state.phase == Phase::Opened;
    let whole = |n: f64| n as u64;
    Room {
        room,
        settings: Some(RoomSettings {
            max_active: whole(state.max),
            admit_per_second: state.rate,
            claim_seconds: whole(state.claim),
            session_seconds: whole(state.session),
            pass_seconds: whole(state.pass),
            grace_seconds: whole(state.grace),
            opens_at_ms: whole(state.opens),
            seed_sha256: state.seed_sha256.clone(),
        }),
        mode: state.mode.into(),
        opened,
        seed: if opened && state.opens > 0.0 { state.seed.0.clone() } else { String::new() },
        figures: Some(Figures {
            joined: whole(state.tickets),
            waiting: whole(state.waiting),
            active: whole(state.active),
            admitted: whole(state.admitted),
            claimed: whole(state.claimed),
            left: whole(state.left),
            no_shows: whole(state.no_shows),
            expired: whole(state.expired),
            away: whole(state.away),
            pace_milli: whole(state.pace * 1000.0),
            longest_wait_ms: stored.longest_wait_us / 1000,
            unrelayed: stored.seq.saturating_sub(whole(state.relayed)),
        }),
        version: Some(Version { epoch: stored.epoch, seq: stored.seq, time_us: stored.time_us }),
        early: if opened { whole(state.early) } else { 0 },
    }
}

/// Returns the message of a ticket, with a pass if the ticket is inside. The token stays empty.
pub(super) fn ticket_message(signer: &Signer, room: &str, reply: &TicketReply) -> Ticket {
    let inside = reply.status.is_inside();
    let pass = if inside {
        signer.pass(&ticket_ref(room, reply), reply.now_us, reply.pass_seconds, reply.until_ms)
    } else {
        String::new()
    };
    Ticket {
        id: Some(TicketId {
            room: room.to_owned(),
            epoch: reply.epoch,
            number: reply.number,
            joined_us: reply.joined_us,
        }),
        state: reply.status.state().into(),
        reason: reply.status.reason().into(),
        position: reply.position,
        waiting: reply.waiting,
        eta_seconds: (reply.position > 0)
            .then(|| eta_seconds(reply.position, reply.pace_milli, reply.mode))
            .flatten(),
        version: Some(Version { epoch: reply.epoch, seq: reply.seq, time_us: reply.time_us }),
        token: String::new(),
        pass,
        until_ms: if inside { reply.until_ms } else { 0 },
    }
}

/// Returns which ticket a token or pass belongs to.
pub(super) fn ticket_ref<'a>(room: &'a str, reply: &TicketReply) -> TicketRef<'a> {
    TicketRef { room, number: reply.number, epoch: reply.epoch, joined_us: reply.joined_us }
}
