//! A waiting room: its names and limits, and the forms of its events.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{GoneReason, Mode, RoomEvent, RoomSettings, room_event::Event};

/// A room's name has at most so many characters.
pub const MAX_NAME_CHARS: usize = 64;

/// The audience of a ticket's token: good for the routes of that ticket.
pub const TICKET_AUDIENCE: &str = "tutti-ticket";
/// The audience of a pass: good for what the waiting room stands in front of.
pub const PASS_AUDIENCE: &str = "tutti-pass";

/// What a ticket's token and a pass say: signed by the waiting room's service with Ed25519.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// [`TICKET_AUDIENCE`] or [`PASS_AUDIENCE`].
    pub aud: String,
    /// The room.
    pub room: String,
    /// The ticket's number.
    pub ticket: u64,
    /// The epoch of the room's feed.
    pub epoch: u32,
    /// When the ticket joined, microseconds since 1970, by the feed's time.
    pub joined: u64,
    /// Since when it is valid, seconds since 1970.
    pub iat: u64,
    /// Until when it is valid, seconds since 1970.
    pub exp: u64,
}

/// Whether a text can be a room's name: it stands in URLs, in keys of Redis and of Kafka.
pub fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    (1..=MAX_NAME_CHARS).contains(&text.len()) && text.chars().all(inner) && !text.starts_with(['-', '_'])
}

/// What is wrong with settings, if something is.
///
/// # Errors
/// A sentence that names the setting as the HTTP interface does.
pub fn check(settings: &RoomSettings) -> Result<(), String> {
    let within = |name: &str, value: u64, most: u64| {
        if (1..=most).contains(&value) { Ok(()) } else { Err(format!("{name} must be 1 to {most}")) }
    };
    within("maxActive", settings.max_active, 1_000_000)?;
    if !(0.01..=10_000.0).contains(&settings.admit_per_second) {
        return Err("admitPerSecond must be 0.01 to 10000".to_owned());
    }
    within("claimSeconds", settings.claim_seconds, 86_400)?;
    within("sessionSeconds", settings.session_seconds, 7 * 86_400)?;
    within("passSeconds", settings.pass_seconds, 86_400)?;
    within("graceSeconds", settings.grace_seconds, 86_400)?;
    // The year 9999: above it, it is of another unit.
    if settings.opens_at_ms > 253_402_300_799_999 {
        return Err("opensAt must be a time before the year 10000".to_owned());
    }
    Ok(())
}

/// Seconds until someone at this position (from 1) is let in, at the pace of late; `None` where the
/// line does not move.
pub fn eta_seconds(position: u64, pace_milli: u64, mode: Mode) -> Option<u64> {
    let moves = matches!(mode, Mode::Open | Mode::Draining) && pace_milli > 0;
    moves.then(|| (position.saturating_mul(1000)).div_ceil(pace_milli))
}

/// A change as JSON, as the Kafka topic carries it; `None` for what is no change: a pulse, an empty
/// record, or what a later version writes.
pub fn to_json(room: &str, epoch: u32, version: u64, time_us: u64, event: &RoomEvent) -> Option<Value> {
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
            json!({"type": kind, "ticket": e.ticket, "reason": reason(e.reason())})
        }
        Event::Settings(e) => json!({"type": "settings", "settings": settings_json(e)}),
        Event::Mode(e) => json!({"type": "mode", "mode": mode(e.mode())}),
        Event::Opened(e) => json!({"type": "opened", "early": e.early, "seed": e.seed}),
        Event::Pulse(_) => return None,
    };
    if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
        all.extend(more);
    }
    Some(all)
}

/// Settings as the HTTP interface names them.
pub fn settings_json(settings: &RoomSettings) -> Value {
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

/// A word for a mode.
pub fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Open => "open",
        Mode::Paused => "paused",
        Mode::Draining => "draining",
        Mode::Closed => "closed",
    }
}

/// A word for a reason.
pub fn reason(reason: GoneReason) -> &'static str {
    match reason {
        GoneReason::Left => "left",
        GoneReason::Released => "released",
        GoneReason::Removed => "removed",
        GoneReason::NoShow => "no_show",
        GoneReason::SessionOver => "session_over",
        GoneReason::Away => "away",
        GoneReason::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["a", "sale-2026", "x_1", &"a".repeat(64)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", "_a", "A", "a b", "a{b}", "ä", "a/b", &"a".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn an_estimate_is_rounded_up_and_there_is_none_where_nothing_moves() {
        assert_eq!(eta_seconds(12, 1300, Mode::Open), Some(10));
        assert_eq!(eta_seconds(1, 100_000, Mode::Draining), Some(1));
        assert_eq!(eta_seconds(12, 1300, Mode::Paused), None);
        assert_eq!(eta_seconds(12, 0, Mode::Open), None);
    }
}
