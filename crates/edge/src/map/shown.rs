//! The part of the map that a stream shows, and what its client was shown before.

use std::sync::Arc;

use tutti_feed::Cursor;

use crate::map::area::Area;
use crate::map::tick::Tick;
use tutti_model::events::ResetReason;

/// What a client was shown of the map so far.
#[derive(Clone, Debug)]
pub(crate) enum Shown {
    /// The client was shown nothing.
    Nothing,
    /// The client was shown everything up to this cursor, under this generation. The generation is `None` if the
    /// client sent the cursor, which may come from another edge.
    UpTo(Arc<Cursor>, Option<u64>),
    /// The client was shown something that this edge cannot continue. The stream begins with a reset.
    Lost(ResetReason),
}

impl Shown {
    /// Whether the client was shown everything of a step except its status.
    pub(crate) fn is_all_of(&self, tick: &Tick) -> bool {
        matches!(self, Self::UpTo(cursor, Some(generation))
            if *cursor == tick.cursor && *generation == tick.generation)
    }
}

/// The part of the map that a stream shows, and how it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// All devices of the world.
    World,
    /// The devices of an area.
    Area(Area),
    /// The number of devices in each cell of an area.
    Clusters(Area),
}

impl View {
    /// Returns the area, or `None` for the whole world.
    pub(crate) fn area(self) -> Option<Area> {
        match self {
            Self::World => None,
            Self::Area(area) | Self::Clusters(area) => Some(area),
        }
    }

    /// Returns the text with which ids of this view end, after a point. `None` for the whole world.
    pub(crate) fn mark(self) -> Option<String> {
        match self {
            Self::World => None,
            Self::Area(area) => Some(area.to_string()),
            Self::Clusters(area) => Some(format!("c{area}")),
        }
    }

    /// Returns an id of the whole world as an id of this view.
    pub(crate) fn id(self, id: &str) -> String {
        self.mark().map_or_else(|| id.to_owned(), |mark| format!("{id}.{mark}"))
    }
}
