//! The enums of the states that Redis keeps as numbers. `tags.lua` has the names of the numbers for the scripts.

use serde::Deserialize;
use tutti_model::{GoneReason, TicketState};

/// The status of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TicketStatus {
    /// The ticket is in the line.
    Waiting,
    /// The ticket is inside, and has to be claimed.
    Admitted,
    /// The ticket is inside, and has a session.
    Claimed,
    /// The ticket has lost its place or its session, for this reason.
    Gone(GoneReason),
}

impl TicketStatus {
    /// Returns the status that a number on Redis stands for. A number of a later version is an unknown reason.
    pub(super) fn from_tag(tag: i32) -> Self {
        match TicketState::try_from(tag) {
            Ok(TicketState::Waiting) => Self::Waiting,
            Ok(TicketState::Admitted) => Self::Admitted,
            Ok(TicketState::Claimed) => Self::Claimed,
            _ => Self::Gone(GoneReason::try_from(tag).unwrap_or_default()),
        }
    }

    /// Returns the state as gRPC has it.
    pub(crate) fn state(self) -> TicketState {
        match self {
            Self::Waiting => TicketState::Waiting,
            Self::Admitted => TicketState::Admitted,
            Self::Claimed => TicketState::Claimed,
            Self::Gone(_) => TicketState::Gone,
        }
    }

    /// Returns why the ticket is gone, or [`GoneReason::Unknown`] if it is not.
    pub(crate) fn reason(self) -> GoneReason {
        match self {
            Self::Gone(reason) => reason,
            Self::Waiting | Self::Admitted | Self::Claimed => GoneReason::Unknown,
        }
    }

    /// Returns whether the ticket is inside.
    pub(crate) fn is_inside(self) -> bool {
        matches!(self, Self::Admitted | Self::Claimed)
    }
}

/// How far the opening of a room is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u8")]
pub enum Phase {
    /// No ticket has a place yet.
    #[default]
    Early = 0,
    /// The early tickets are being given their places.
    Opening = 1,
    /// Every ticket has a place.
    Opened = 2,
}

impl TryFrom<u8> for Phase {
    type Error = String;

    fn try_from(tag: u8) -> Result<Self, String> {
        [Self::Early, Self::Opening, Self::Opened]
            .into_iter()
            .find(|phase| *phase as u8 == tag)
            .ok_or_else(|| format!("there is no phase {tag}"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost::Message as _;
    use tutti_model::room_event::Event;
    use tutti_model::{
        Admitted, Claimed, Gone, Joined, Mode, Opened, Pulse, RoomEvent, RoomMode, RoomSettings,
    };

    use super::*;

    /// Returns the numbers of `tags.lua` by their names.
    fn lua_tags() -> BTreeMap<&'static str, i32> {
        include_str!("../lua/tags.lua")
            .lines()
            .filter_map(|line| line.strip_prefix("local ")?.split_once(" = "))
            .flat_map(|(names, numbers)| {
                let numbers = numbers.split(", ").map(|number| number.parse().unwrap());
                names.split(", ").zip(numbers).collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn the_scripts_and_the_enums_have_the_same_numbers() {
        let events = [
            ("JOINED_EVENT", Event::Joined(Joined::default())),
            ("ADMITTED_EVENT", Event::Admitted(Admitted::default())),
            ("CLAIMED_EVENT", Event::Claimed(Claimed::default())),
            ("GONE_EVENT", Event::Gone(Gone::default())),
            ("SETTINGS_EVENT", Event::Settings(RoomSettings::default())),
            ("MODE_EVENT", Event::Mode(RoomMode::default())),
            ("OPENED_EVENT", Event::Opened(Opened::default())),
            ("PULSE_EVENT", Event::Pulse(Pulse::default())),
        ];
        let field_number = |event| i32::from(RoomEvent { event: Some(event) }.encode_to_vec()[0] >> 3);
        let mut expected: BTreeMap<&str, i32> =
            events.map(|(name, event)| (name, field_number(event))).into_iter().collect();
        for tag in 0..=100 {
            if let Ok(mode) = Mode::try_from(tag) {
                expected.insert(mode.as_str_name(), tag);
            }
            if let Ok(state @ (TicketState::Waiting | TicketState::Admitted | TicketState::Claimed)) =
                TicketState::try_from(tag)
            {
                expected.insert(state.as_str_name(), tag);
            }
            match GoneReason::try_from(tag) {
                Ok(GoneReason::Unknown) | Err(_) => {}
                Ok(reason) => drop(expected.insert(reason.as_str_name(), tag)),
            }
        }
        for (name, phase) in [("EARLY", Phase::Early), ("OPENING", Phase::Opening), ("OPENED", Phase::Opened)]
        {
            expected.insert(name, phase as i32);
        }
        let fields = ["STATE", "JOINED_AT", "DEADLINE", "SEEN_AT", "LISTED", "KEY"];
        expected.extend(fields.into_iter().zip(1..));
        assert_eq!(lua_tags(), expected);
    }

    #[test]
    fn the_numbers_on_redis_are_those_of_earlier_versions() {
        let statuses = [
            (1, TicketStatus::Waiting),
            (2, TicketStatus::Admitted),
            (3, TicketStatus::Claimed),
            (11, TicketStatus::Gone(GoneReason::Left)),
            (12, TicketStatus::Gone(GoneReason::Released)),
            (13, TicketStatus::Gone(GoneReason::Removed)),
            (14, TicketStatus::Gone(GoneReason::NoShow)),
            (15, TicketStatus::Gone(GoneReason::SessionOver)),
            (16, TicketStatus::Gone(GoneReason::Away)),
            (4, TicketStatus::Gone(GoneReason::Unknown)),
            (99, TicketStatus::Gone(GoneReason::Unknown)),
        ];
        for (tag, status) in statuses {
            assert_eq!(TicketStatus::from_tag(tag), status, "{tag}");
        }
        let tags =
            [("WAITING", 1), ("CLAIMED", 3), ("AWAY", 16), ("CLOSED", 3), ("OPENED", 2), ("PULSE_EVENT", 8)];
        for (name, tag) in tags {
            assert_eq!(lua_tags()[name], tag, "{name}");
        }
        assert_eq!([0, 1, 2].map(Phase::try_from), [Ok(Phase::Early), Ok(Phase::Opening), Ok(Phase::Opened)]);
        assert!(Phase::try_from(3).is_err());
    }
}
