//! What a stream of the map shows, and what its client was shown before.

use std::sync::Arc;

use tutti_feed::Cursor;

use crate::map::area::Area;
use crate::map::tick::Tick;
use tutti_model::events::ResetReason;

/// What a stream was shown so far.
#[derive(Clone, Debug)]
pub(crate) enum Shown {
    /// Nothing.
    Nothing,
    /// What this cursor covers, under this generation; `None` if the cursor came from the client,
    /// perhaps from another edge.
    UpTo(Arc<Cursor>, Option<u64>),
    /// Something that we cannot tell: begin with a reset.
    Lost(ResetReason),
}

impl Shown {
    /// Whether that is all of this step, but for its status.
    pub(crate) fn is_all_of(&self, tick: &Tick) -> bool {
        matches!(self, Self::UpTo(cursor, Some(generation))
            if *cursor == tick.cursor && *generation == tick.generation)
    }
}

/// What part of the map a stream shows, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// All of it.
    World,
    /// The devices of an area.
    Area(Area),
    /// How many devices each cell of an area has.
    Clusters(Area),
}

impl View {
    pub(crate) fn area(self) -> Option<Area> {
        match self {
            Self::World => None,
            Self::Area(area) | Self::Clusters(area) => Some(area),
        }
    }

    /// What ids of this part end with, after a point.
    pub(crate) fn mark(self) -> Option<String> {
        match self {
            Self::World => None,
            Self::Area(area) => Some(area.to_string()),
            Self::Clusters(area) => Some(format!("c{area}")),
        }
    }

    /// An id of the world, as one of this part.
    pub(crate) fn id(self, id: &str) -> String {
        self.mark().map_or_else(|| id.to_owned(), |mark| format!("{id}.{mark}"))
    }
}
