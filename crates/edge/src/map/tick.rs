//! What the conductor publishes: a state, and the bytes that take a client there from the state
//! before.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use tutti_feed::{Cursor, Position};

use crate::following::status::Status;
use crate::map::area::{Area, ByZoom, Tile};
use crate::map::copies::Copies;
use crate::map::snapshot::{self, Form, MapCopy};
use crate::map::state::MapState;
use crate::map::tile_updates::{Cells, Change, Tiles, cells_of, changed_cells, write_news};
use crate::map::view::MapView;
use tutti_model::events::ResetReason;
use tutti_sse::events::Events;
use tutti_sse::frame::Frame;

/// One step of the map, the same for all clients.
#[derive(Debug)]
pub(crate) struct Tick {
    /// Counts the steps of this edge. A client can be taken on only from the step before.
    pub(crate) no: u64,
    /// Counts the resets: what was shown under another one is void.
    pub(crate) generation: u64,
    /// Why this generation began.
    pub(crate) reset_reason: ResetReason,
    /// The state.
    pub(crate) view: MapView,
    pub(crate) cursor: Arc<Cursor>,
    /// The cursor's text.
    pub(crate) id: Arc<str>,
    /// From the step before to this one; nothing if a client would see no difference.
    pub(crate) live: Option<Frame>,
    pub(crate) status: Status,
    /// The status, where it is another than in the step before.
    pub(crate) status_frame: Option<Frame>,
    /// The same change for those who look at a part of the world.
    pub(crate) tiles: Tiles,
    /// Redis's own heads, and how often they have been asked for.
    pub(crate) heads: Vec<Option<Position>>,
    pub(crate) polls: u64,
    /// By form; also that there may be none holds for this step: each that asks would try again.
    copies: [OnceLock<MapCopy>; Form::COUNT],
    cells: ByZoom<Cells>,
    /// What clients of each tile are told of its cells, by zoom.
    clusters: ByZoom<HashMap<Tile, Frame>>,
}

/// What a tick is made of besides the map's state.
pub(crate) struct Step {
    pub(crate) no: u64,
    pub(crate) generation: u64,
    pub(crate) reset_reason: ResetReason,
    pub(crate) status: Status,
    /// The status is another than in the step before.
    pub(crate) status_changed: bool,
    pub(crate) heads: Vec<Option<Position>>,
    pub(crate) polls: u64,
}

#[cfg(test)]
impl Step {
    /// A step of an edge that is live and has had no reset.
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
    /// Takes what changed out of the map, and encodes it: the only place where a live event is
    /// written.
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

    /// The copy of the whole map in this form, if one was made.
    pub(crate) fn copy(&self, form: Form) -> Option<&MapCopy> {
        self.copies[form.index()].get()
    }

    /// The whole map as one document, encoded once for all that ask for this step. Returns `None` if there are as
    /// many copies as there may be.
    pub(crate) fn make_copy(&self, form: Form, copies: &Copies) -> Option<MapCopy> {
        if let Some(made) = self.copy(form) {
            return Some(made.clone());
        }
        // That there is no room is not kept: while Redis is away there is no other step.
        let made = snapshot::encode(&self.view, &self.id, None, form, copies)?;
        Some(self.copies[form.index()].get_or_init(|| made).clone())
    }

    /// An area as one document. Returns `None` if there are as many copies as there may be.
    pub(crate) fn make_copy_of(&self, area: Area, form: Form, copies: &Copies) -> Option<MapCopy> {
        snapshot::encode(&self.view, &self.id, Some(area), form, copies)
    }

    /// What this step changed in the cells of each tile of this zoom; encoded once for all.
    pub(crate) fn clusters(&self, before: &Self, zoom: u8) -> &HashMap<Tile, Frame> {
        let encode = || changed_cells(self.cells(zoom), before.cells(zoom), zoom);
        self.clusters[zoom as usize].get_or_init(encode)
    }

    /// How many devices each cell of the tiles of this zoom has; counted once for all.
    pub(crate) fn cells(&self, zoom: u8) -> &Cells {
        self.cells[zoom as usize].get_or_init(|| cells_of(&self.view, zoom))
    }
}
