//! The state of a waiting room at an edge. It is a pure fold: a snapshot, to which the records of the room's feed are
//! applied in order.

use std::sync::Arc;

use prost::Message as _;
use roaring::RoaringBitmap;
use tutti_feed::{Position, Record};
use tutti_model::queue::RoomSnapshot;
use tutti_model::{GoneReason, Mode, RoomEvent, lottery, room, room_event::Event};

use crate::rooms::client::position;

/// A room at one version.
#[derive(Clone, Debug)]
pub(crate) struct RoomView {
    pub(crate) version: Position,
    pub(crate) mode: Mode,
    /// Whether the visitors have places in the line.
    pub(crate) opened: bool,
    /// When the room opens, in milliseconds since 1970.
    pub(crate) opens_at_ms: u64,
    /// Tickets with numbers up to this one took part in the draw of the opening.
    early: u64,
    /// The seed of that draw.
    seed: Arc<str>,
    /// Places that wait. Before the opening, ticket numbers that wait.
    waiting: Arc<RoaringBitmap>,
    /// Tickets that were admitted and are not gone.
    inside: Arc<RoaringBitmap>,
    /// Admissions in a thousand seconds, as the service measured them.
    pace_milli: u64,
}

/// What a record did to a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// The record was applied to the view.
    Folded,
    /// The room opened and all visitors received places, which only a snapshot lists.
    Opened,
    /// This version of Tutti cannot read the payload.
    Unreadable,
}

/// Where a visitor that waits is in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rank {
    /// The position, counted from 1.
    pub(crate) position: u64,
    /// Number of visitors behind.
    pub(crate) behind: u64,
}

impl RoomView {
    /// Returns the view of a snapshot, or `None` if the snapshot is incomplete.
    pub(crate) fn of_snapshot(snapshot: RoomSnapshot) -> Option<Self> {
        let room = snapshot.room?;
        let version = position(Some(room.version?));
        let settings = room.settings.clone()?;
        let first = snapshot.first_place;
        let bits = snapshot.waiting.iter().enumerate().flat_map(|(i, byte)| {
            (0..8).filter(move |bit| byte & (0x80 >> bit) != 0).map(move |bit| first + (i as u64) * 8 + bit)
        });
        Some(Self {
            version,
            mode: room.mode(),
            opened: room.opened,
            opens_at_ms: settings.opens_at_ms,
            early: room.early,
            seed: room.seed.as_str().into(),
            waiting: Arc::new(bits.map(|place| place as u32).collect()),
            inside: Arc::new(snapshot.active.iter().map(|ticket| *ticket as u32).collect()),
            pace_milli: room.figures.unwrap_or_default().pace_milli,
        })
    }

    /// Applies the next record of the feed. Its position becomes the version, whatever the record says.
    pub(crate) fn apply(&mut self, record: &Record) -> Applied {
        self.version = record.position;
        let Ok(RoomEvent { event }) = RoomEvent::decode(record.payload.clone()) else {
            return Applied::Unreadable;
        };
        match event {
            None if record.payload.is_empty() => {}
            None => return Applied::Unreadable,
            Some(Event::Joined(e)) => {
                Arc::make_mut(&mut self.waiting).insert(e.ticket as u32);
            }
            Some(Event::Admitted(e)) => {
                Arc::make_mut(&mut self.waiting).remove(e.place as u32);
                Arc::make_mut(&mut self.inside).insert(e.ticket as u32);
            }
            Some(Event::Gone(e)) => {
                if matches!(e.reason(), GoneReason::NoShow | GoneReason::SessionOver | GoneReason::Released)
                    || self.is_inside(e.ticket)
                {
                    Arc::make_mut(&mut self.inside).remove(e.ticket as u32);
                } else {
                    let key = if self.opened { e.place } else { e.ticket };
                    Arc::make_mut(&mut self.waiting).remove(key as u32);
                }
            }
            Some(Event::Settings(e)) => self.opens_at_ms = e.opens_at_ms,
            Some(Event::Mode(e)) => self.mode = e.mode(),
            Some(Event::Opened(_)) => return Applied::Opened,
            Some(Event::Pulse(e)) => self.pace_milli = e.pace_milli,
            Some(Event::Claimed(_)) => {}
        }
        Applied::Folded
    }

    /// Returns the key of a ticket among those that wait: its place in the line, or before the opening its number.
    pub(crate) fn bitmap_index(&self, ticket: u64) -> u64 {
        if self.opened { lottery::place_of(ticket, self.early, &self.seed) } else { ticket }
    }

    /// Whether a visitor with this key waits.
    pub(crate) fn is_waiting(&self, key: u64) -> bool {
        u32::try_from(key).is_ok_and(|key| self.waiting.contains(key))
    }

    /// Whether a ticket was admitted and is not gone.
    pub(crate) fn is_inside(&self, ticket: u64) -> bool {
        u32::try_from(ticket).is_ok_and(|ticket| self.inside.contains(ticket))
    }

    /// Returns where the visitor with this key is in the line, or `None` before the opening.
    pub(crate) fn rank(&self, key: u64) -> Option<Rank> {
        let position = self.waiting.rank(u32::try_from(key).ok()?);
        self.opened.then(|| Rank { position, behind: self.waiting.len() - position })
    }

    /// Estimates the seconds until the visitor at this position is admitted. Returns `None` if there is no estimate.
    pub(crate) fn eta_seconds(&self, position: u64) -> Option<u64> {
        room::eta_seconds(position, self.pace_milli, self.mode)
    }

    /// Returns the number of visitors that wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use tutti_model::queue::{Figures, Room, Version};
    use tutti_model::{Admitted, Gone, Joined, RoomSettings, TicketState};

    fn view(opened: bool, waiting: &'static [u8], first_place: u64) -> RoomView {
        let room = Room {
            settings: Some(RoomSettings::default()),
            opened,
            figures: Some(Figures { pace_milli: 2000, ..Figures::default() }),
            version: Some(Version { epoch: 1, seq: 10, time_us: 10 }),
            ..Room::default()
        };
        let waiting = Bytes::from_static(waiting);
        let snapshot = RoomSnapshot { room: Some(room), waiting, first_place, active: vec![3] };
        RoomView::of_snapshot(snapshot).unwrap()
    }

    fn apply(view: &mut RoomView, event: Event) -> Applied {
        let payload = RoomEvent { event: Some(event) }.encode_to_vec().into();
        let seq = view.version.seq + 1;
        let position = Position { epoch: 1, seq, time_us: seq };
        view.apply(&Record { position, prev_time_us: seq - 1, payload })
    }

    #[test]
    fn a_snapshot_and_what_follows_give_each_their_rank() {
        // Bits 9, 10 and 12 of a line that begins at 8.
        let mut view = view(true, &[0b0110_1000], 8);
        assert_eq!(view.rank(12), Some(Rank { position: 3, behind: 0 }));
        apply(&mut view, Event::Joined(Joined { ticket: 13 }));
        apply(&mut view, Event::Admitted(Admitted { ticket: 9, place: 9, claim_by_ms: 0, waited_ms: 0 }));
        assert_eq!(view.rank(12), Some(Rank { position: 2, behind: 1 }));
        assert!(view.is_inside(9) && !view.is_waiting(9));
        let mut gone = Gone { ticket: 10, place: 10, was: TicketState::Waiting.into(), ..Gone::default() };
        gone.set_reason(GoneReason::Left);
        apply(&mut view, Event::Gone(gone));
        assert_eq!(view.rank(12), Some(Rank { position: 1, behind: 1 }));
        gone = Gone { ticket: 9, ..Gone::default() };
        gone.set_reason(GoneReason::NoShow);
        apply(&mut view, Event::Gone(gone));
        assert!(!view.is_inside(9));
        assert_eq!(view.eta_seconds(1), Some(1));
    }

    #[test]
    fn before_the_opening_nobody_has_a_rank() {
        let mut view = view(false, &[0b0110_0000], 0);
        assert!(view.is_waiting(1) && view.is_waiting(2));
        assert_eq!(view.rank(1), None);
        apply(&mut view, Event::Gone(Gone { ticket: 1, reason: GoneReason::Left.into(), ..Gone::default() }));
        assert!(!view.is_waiting(1));
        assert_eq!(apply(&mut view, Event::Opened(tutti_model::Opened::default())), Applied::Opened);
    }
}
