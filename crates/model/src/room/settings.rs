//! The settings of a room: defaults, limits, and how JSON and gRPC give them.

use serde::de::MapAccess;

use crate::json::{self, Field, Object};
use crate::queue::RoomChanges;
use crate::{RoomSettings, time};

/// Returns the default settings of a room.
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

/// Checks changes of settings.
///
/// # Errors
/// Returns a sentence that names the wrong setting as the HTTP interface does.
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

/// Returns the changes that set all settings of a room, as a gRPC caller gives them. A setting that is 0 is absent, for
/// in protobuf both are the same bytes. The opening time is `opens_at_ms`, not that of `settings`.
pub fn changes_from_grpc(settings: &RoomSettings, opens_at_ms: Option<u64>) -> RoomChanges {
    let present = |value: u64| (value != 0).then_some(value);
    RoomChanges {
        max_active: present(settings.max_active),
        admit_per_second: (settings.admit_per_second != 0.0).then_some(settings.admit_per_second),
        claim_seconds: present(settings.claim_seconds),
        session_seconds: present(settings.session_seconds),
        pass_seconds: present(settings.pass_seconds),
        grace_seconds: present(settings.grace_seconds),
        opens_at_ms,
    }
}

/// Returns the settings that changes give, with the default for each absent setting. The opening time stays absent.
pub fn with_defaults(changes: &RoomChanges) -> RoomSettings {
    let default = defaults();
    RoomSettings {
        max_active: changes.max_active.unwrap_or(default.max_active),
        admit_per_second: changes.admit_per_second.unwrap_or(default.admit_per_second),
        claim_seconds: changes.claim_seconds.unwrap_or(default.claim_seconds),
        session_seconds: changes.session_seconds.unwrap_or(default.session_seconds),
        pass_seconds: changes.pass_seconds.unwrap_or(default.pass_seconds),
        grace_seconds: changes.grace_seconds.unwrap_or(default.grace_seconds),
        ..default
    }
}

/// Reads the changes that a JSON object asks for. A setting that it does not name stays as it is; a setting that is null
/// returns to its default.
///
/// # Errors
/// Returns a sentence that says what is wrong with the object.
pub fn changes_from_json(text: &[u8]) -> Result<RoomChanges, String> {
    let written: SettingsJson = json::read(text).map_err(|error| format!("the settings: {error}"))?;
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

/// Reads all settings that a JSON object gives, and the opening time. A setting that is absent or null has its default;
/// the opening time is `None` if it is absent, for then it stays as it is.
///
/// # Errors
/// Returns a sentence that says what is wrong with the object.
pub fn settings_from_json(text: &[u8]) -> Result<(RoomSettings, Option<u64>), String> {
    let changes = changes_from_json(text)?;
    Ok((with_defaults(&changes), changes.opens_at_ms))
}

/// Returns the changes that set all settings of a room. The opening time stays as it is if `opens_at_ms` is `None`.
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

/// Settings as an administrator writes them: a JSON object with any of the fields. A field that is absent is `None`, and
/// one that is null is `Some(None)`.
#[derive(Debug, Default)]
struct SettingsJson {
    max_active: Option<Option<u64>>,
    admit_per_second: Option<Option<f64>>,
    claim_seconds: Option<Option<u64>>,
    session_seconds: Option<Option<u64>>,
    pass_seconds: Option<Option<u64>>,
    grace_seconds: Option<Option<u64>>,
    opens_at: Option<Option<u64>>,
}

impl<'de> Object<'de> for SettingsJson {
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
            "opensAt" => self.opens_at = Some(field.scalar()?),
            name => unreachable!("{name} is not in FIELDS"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_are_null_or_absent_have_their_defaults_and_only_the_opening_time_stays() {
        assert_eq!(settings_from_json(b"{}"), Ok((defaults(), None)));
        let nulls = br#"{"maxActive":null,"admitPerSecond":null,"claimSeconds":null,"sessionSeconds":null,"passSeconds":null,"graceSeconds":null,"opensAt":null}"#;
        assert_eq!(settings_from_json(nulls), Ok((defaults(), Some(0))));
        let some = br#"{"maxActive":5.0,"admitPerSecond":1,"opensAt":1796071271698.0}"#;
        let expected = RoomSettings { max_active: 5, admit_per_second: 1.0, ..defaults() };
        assert_eq!(settings_from_json(some), Ok((expected, Some(1_796_071_271_698))));
    }

    #[test]
    fn changes_are_of_what_is_named_and_null_is_back_to_the_default() {
        assert_eq!(changes_from_json(b"{}"), Ok(RoomChanges::default()));
        let changes = changes_from_json(br#"{"maxActive":5,"graceSeconds":null}"#).unwrap();
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
            let (put, patch) = (settings_from_json(text.as_bytes()), changes_from_json(text.as_bytes()));
            assert!(put.as_ref().is_err_and(|error| error.starts_with(message)), "{text}: {put:?}");
            assert_eq!(put.err(), patch.err());
        }
    }
}
