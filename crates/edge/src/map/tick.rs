//! Ticks, which the follower publishes: a state of the map, and the bytes that take a client there from the state
//! before.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use tutti_feed::{Cursor, Position};

use crate::following::status::Status;
use crate::map::area::{Area, ByZoom, Tile};
use crate::map::copy_bytes::CopyBytes;
use crate::map::snapshot::{self, Form, MapCopy};
use crate::map::state::MapState;
use crate::map::tile_updates::{Cells, Change, Tiles, cells_of, changed_cells, write_news};
use crate::map::view::MapView;
use tutti_model::events::ResetReason;
use tutti_sse::events::Events;
use tutti_sse::frame::Frame;

/// One step of the map, shared by all clients.
#[derive(Debug)]
pub(crate) struct Tick {
    /// The number of the step on this edge. `live` and `tiles` are valid only for clients at the step before.
    pub(crate) no: u64,
    /// The number of resets before this step. What a client was shown under another generation is void.
    pub(crate) generation: u64,
    /// Why this generation began.
    pub(crate) reset_reason: ResetReason,
    /// The state of the map.
    pub(crate) view: MapView,
    /// The positions up to which the state includes the feeds.
    pub(crate) cursor: Arc<Cursor>,
    /// The cursor's text.
    pub(crate) id: Arc<str>,
    /// The bytes from the step before to this one, for clients of the whole world. `None` if they would see no
    /// difference.
    pub(crate) live: Option<Frame>,
    /// The status of the map at this step.
    pub(crate) status: Status,
    /// The event with the status. `None` if the step before has the same status.
    pub(crate) status_frame: Option<Frame>,
    /// The changes of this step, for clients of an area.
    pub(crate) tiles: Tiles,
    /// Positions of the heads of the feeds in Redis at the last poll.
    pub(crate) heads: Vec<Option<Position>>,
    /// Number of polls of the heads.
    pub(crate) polls: u64,
    /// The copies of the whole map that were made at this step, by form. A refusal for lack of room is not kept: each
    /// request tries again.
    copies: [OnceLock<MapCopy>; Form::COUNT],
    /// The number of devices in each cell, by zoom.
    cells: ByZoom<Cells>,
    /// The events with the cells that changed, by zoom and tile.
    clusters: ByZoom<HashMap<Tile, Frame>>,
}

/// The parts of a tick other than the map's state.
pub(crate) struct Step {
    /// The number of the step.
    pub(crate) no: u64,
    /// The number of resets before this step.
    pub(crate) generation: u64,
    /// Why this generation began.
    pub(crate) reset_reason: ResetReason,
    /// The status of the map.
    pub(crate) status: Status,
    /// Whether the step before has another status.
    pub(crate) status_changed: bool,
    /// Positions of the heads of the feeds in Redis at the last poll.
    pub(crate) heads: Vec<Option<Position>>,
    /// Number of polls of the heads.
    pub(crate) polls: u64,
}

#[cfg(test)]
impl Step {
    /// Creates a step of an edge that is live and has had no reset.
    pub(crate) fn numbered(no: u64) -> Self {
        Self {
            no,
            generation: 0,
            reset_reason: ResetReason::Start,
            status: Status::Live,
            status_changed: false,
            heads: Vec::new(),
            polls: 0,
        }
    }
}

impl Tick {
    /// Takes the changes out of the map and makes a tick of them. Live events of the whole world are encoded only
    /// here; those of areas are encoded when they are first needed.
    pub(crate) fn new(map: &mut MapState, step: Step) -> Self {
        let changed = map.take_changed().into_iter().filter_map(|(id, was)| {
            let entry = map.view().get(&id)?.clone();
            Some(Change { id, entry, was })
        });
        let changed: Vec<Change> = changed.collect();
        let view = map.view().clone();
        let cursor = view.cursor();
        let id: Arc<str> = cursor.to_text().into();

        let mut events = Events::default();
        if step.status_changed {
            step.status.write(&mut events);
        }
        let status_frame = (!events.is_empty()).then(|| events.frame());
        if !changed.is_empty() {
            write_news(changed.iter().map(|change| &*change.entry), &mut events);
            events.id(&id);
        }
        let live = (!events.is_empty()).then(|| events.frame());
        let Step { no, generation, reset_reason, status, heads, polls, .. } = step;
        let cursor = Arc::new(cursor);
        Self {
            no,
            generation,
            reset_reason,
            view,
            cursor,
            id,
            live,
            status,
            status_frame,
            tiles: Tiles::new(changed),
            heads,
            polls,
            copies: Default::default(),
            cells: Default::default(),
            clusters: Default::default(),
        }
    }

    /// Returns the copy of the whole map in this form, if one was made.
    pub(crate) fn copy(&self, form: Form) -> Option<&MapCopy> {
        self.copies[form.index()].get()
    }

    /// Returns the whole map as one document, encoded once for all requests that find this step. Returns `None` if
    /// the copies that are held leave no room for another.
    pub(crate) fn make_copy(&self, form: Form, copies: &CopyBytes) -> Option<MapCopy> {
        if let Some(made) = self.copy(form) {
            return Some(made.clone());
        }
        // A refusal is not kept: while Redis is away there is no other step at which to try again.
        let made = snapshot::encode(&self.view, &self.id, None, form, copies)?;
        Some(self.copies[form.index()].get_or_init(|| made).clone())
    }

    /// Returns an area as one document. Returns `None` if the copies that are held leave no room for another.
    pub(crate) fn make_copy_of(&self, area: Area, form: Form, copies: &CopyBytes) -> Option<MapCopy> {
        snapshot::encode(&self.view, &self.id, Some(area), form, copies)
    }

    /// Returns the events with the cells that changed between the steps `before` and this one, by tile of this zoom.
    /// They are encoded once for all clients.
    pub(crate) fn clusters(&self, before: &Self, zoom: u8) -> &HashMap<Tile, Frame> {
        let encode = || changed_cells(self.cells(zoom), before.cells(zoom), zoom);
        self.clusters[zoom as usize].get_or_init(encode)
    }

    /// Returns the number of devices in each cell of the tiles of this zoom. They are counted once for all clients.
    pub(crate) fn cells(&self, zoom: u8) -> &Cells {
        self.cells[zoom as usize].get_or_init(|| cells_of(&self.view, zoom))
    }
}
