//! A waiting room: its names and limits, and the forms of its events.

use serde::de::MapAccess;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::json::{self, Field, Object};
use crate::queue::RoomChanges;
use crate::{GoneReason, Mode, RoomEvent, RoomSettings, room_event::Event, time};

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

/// The settings of a room of which nothing is said.
pub fn defaults() -> RoomSettings {
    RoomSettings {
        max_active: 100,
        admit_per_second: 20.0,
        claim_seconds: 60,
        session_seconds: 600,
        pass_seconds: 60,
        grace_seconds: 120,
        opens_at_ms: 0,
        seed_sha256: String::new(),
    }
}

/// What is wrong with changes of settings, if something is.
///
/// # Errors
/// A sentence that names the setting as the HTTP interface does.
pub fn check(changes: &RoomChanges) -> Result<(), String> {
    let within = |name: &str, value: Option<u64>, most: u64| match value {
        Some(value) if !(1..=most).contains(&value) => Err(format!("{name} must be 1 to {most}")),
        _ => Ok(()),
    };
    within("maxActive", changes.max_active, 1_000_000)?;
    if changes.admit_per_second.is_some_and(|rate| !(0.01..=10_000.0).contains(&rate)) {
        return Err("admitPerSecond must be 0.01 to 10000".to_owned());
    }
    within("claimSeconds", changes.claim_seconds, 86_400)?;
    within("sessionSeconds", changes.session_seconds, 7 * 86_400)?;
    within("passSeconds", changes.pass_seconds, 86_400)?;
    within("graceSeconds", changes.grace_seconds, 86_400)?;
    match changes.opens_at_ms {
        None | Some(0) => Ok(()),
        Some(at) => {
            time::check(i64::try_from(at).unwrap_or(i64::MAX)).map_err(|wrong| format!("opensAt {wrong}"))
        }
    }
}

/// Settings as an administrator writes them: a JSON object with any of their fields. Of each, nothing is said, or
/// that it is null, or its value.
#[derive(Debug, Default)]
struct Written {
    max_active: Option<Option<u64>>,
    admit_per_second: Option<Option<f64>>,
    claim_seconds: Option<Option<u64>>,
    session_seconds: Option<Option<u64>>,
    pass_seconds: Option<Option<u64>>,
    grace_seconds: Option<Option<u64>>,
    opens_at: Option<Option<u64>>,
}

impl<'de> Object<'de> for Written {
    const FIELDS: &'static [&'static str] = &[
        "maxActive",
        "admitPerSecond",
        "claimSeconds",
        "sessionSeconds",
        "passSeconds",
        "graceSeconds",
        "opensAt",
    ];

    fn take<A: MapAccess<'de>>(&mut self, field: Field<'_, A>) -> Result<(), A::Error> {
        match field.name {
            "maxActive" => self.max_active = Some(field.scalar()?),
            "admitPerSecond" => self.admit_per_second = Some(field.scalar()?),
            "claimSeconds" => self.claim_seconds = Some(field.scalar()?),
            "sessionSeconds" => self.session_seconds = Some(field.scalar()?),
            "passSeconds" => self.pass_seconds = Some(field.scalar()?),
            "graceSeconds" => self.grace_seconds = Some(field.scalar()?),
            _ => self.opens_at = Some(field.scalar()?),
        }
        Ok(())
    }
}

/// The changes that a JSON object asks for: a setting that it does not name stays as it is, and one that is null
/// goes back to its default.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn changes_of(text: &[u8]) -> Result<RoomChanges, String> {
    let written: Written = json::read(text).map_err(|error| format!("the settings: {error}"))?;
    let default = defaults();
    let or = |value: Option<Option<u64>>, default: u64| value.map(|value| value.unwrap_or(default));
    let changes = RoomChanges {
        max_active: or(written.max_active, default.max_active),
        admit_per_second: written.admit_per_second.map(|rate| rate.unwrap_or(default.admit_per_second)),
        claim_seconds: or(written.claim_seconds, default.claim_seconds),
        session_seconds: or(written.session_seconds, default.session_seconds),
        pass_seconds: or(written.pass_seconds, default.pass_seconds),
        grace_seconds: or(written.grace_seconds, default.grace_seconds),
        opens_at_ms: or(written.opens_at, default.opens_at_ms),
    };
    check(&changes)?;
    Ok(changes)
}

/// All settings that a JSON object gives: one that it does not name, or that is null, has its default. The opening
/// time stands apart, for one that is not named stays as it is.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn settings_of(text: &[u8]) -> Result<(RoomSettings, Option<u64>), String> {
    let changes = changes_of(text)?;
    let default = defaults();
    let settings = RoomSettings {
        max_active: changes.max_active.unwrap_or(default.max_active),
        admit_per_second: changes.admit_per_second.unwrap_or(default.admit_per_second),
        claim_seconds: changes.claim_seconds.unwrap_or(default.claim_seconds),
        session_seconds: changes.session_seconds.unwrap_or(default.session_seconds),
        pass_seconds: changes.pass_seconds.unwrap_or(default.pass_seconds),
        grace_seconds: changes.grace_seconds.unwrap_or(default.grace_seconds),
        ..default
    };
    Ok((settings, changes.opens_at_ms))
}

/// All settings of a room as changes; its opening time stays as it is where `opens_at_ms` is absent.
pub fn all_changed(settings: &RoomSettings, opens_at_ms: Option<u64>) -> RoomChanges {
    RoomChanges {
        max_active: Some(settings.max_active),
        admit_per_second: Some(settings.admit_per_second),
        claim_seconds: Some(settings.claim_seconds),
        session_seconds: Some(settings.session_seconds),
        pass_seconds: Some(settings.pass_seconds),
        grace_seconds: Some(settings.grace_seconds),
        opens_at_ms,
    }
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
    fn settings_that_are_null_or_absent_have_their_defaults_and_only_the_opening_time_stays() {
        assert_eq!(settings_of(b"{}"), Ok((defaults(), None)));
        let nulls = br#"{"maxActive":null,"admitPerSecond":null,"claimSeconds":null,"sessionSeconds":null,"passSeconds":null,"graceSeconds":null,"opensAt":null}"#;
        assert_eq!(settings_of(nulls), Ok((defaults(), Some(0))));
        let some = br#"{"maxActive":5.0,"admitPerSecond":1,"opensAt":1796071271698.0}"#;
        let expected = RoomSettings { max_active: 5, admit_per_second: 1.0, ..defaults() };
        assert_eq!(settings_of(some), Ok((expected, Some(1_796_071_271_698))));
    }

    #[test]
    fn changes_are_of_what_is_named_and_null_is_back_to_the_default() {
        assert_eq!(changes_of(b"{}"), Ok(RoomChanges::default()));
        let changes = changes_of(br#"{"maxActive":5,"graceSeconds":null}"#).unwrap();
        let expected =
            RoomChanges { max_active: Some(5), grace_seconds: Some(120), ..RoomChanges::default() };
        assert_eq!(changes, expected);
    }

    #[test]
    fn what_is_wrong_with_settings_is_said_by_their_names() {
        for (text, message) in [
            ("", "the settings: it is empty"),
            ("[5]", "the settings: it must be one object, is an array"),
            (r#"{"maxActive":"5"}"#, "the settings: `maxActive` must be an integer from 0 up, is a string"),
            (r#"{"maxActive":5,"maxActive":6}"#, "the settings: `maxActive` stands twice"),
            (r#"{"colour":1}"#, "the settings: there is no field `colour`"),
            (r#"{"maxActive":0}"#, "maxActive must be 1 to 1000000"),
            (r#"{"admitPerSecond":0}"#, "admitPerSecond must be 0.01 to 10000"),
            (r#"{"opensAt":1796071271}"#, "opensAt 1796071271 is before the year 2001: is it in seconds?"),
            (r#"{"opensAt":1796071271698000}"#, "opensAt 1796071271698000 is after the year 9999"),
        ] {
            let (put, patch) = (settings_of(text.as_bytes()), changes_of(text.as_bytes()));
            assert!(put.as_ref().is_err_and(|error| error.starts_with(message)), "{text}: {put:?}");
            assert_eq!(put.err(), patch.err());
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
