use tutti_model::ResetReason;

use crate::record::{Position, Record};

/// What following feeds yields. `feed` is the index of the feed among the names that were given to [`follow`].
///
/// [`follow`]: crate::follow
#[derive(Debug)]
pub enum Event {
    /// The next record of a feed.
    Record {
        /// Index of the feed.
        feed: usize,
        /// The record.
        record: Record,
    },
    /// Records of a feed are missing for good. What follows is the log, from its oldest record on.
    Reset {
        /// Index of the feed.
        feed: usize,
        /// Why records are missing.
        reason: ResetReason,
    },
    /// The heads of all feeds, as Redis had them at a poll. Records up to a head may still be on their way.
    Heads(Vec<Head>),
    /// The number of records that lie in Kafka and cannot be read yet has changed. It is 0 at first.
    HeldBack {
        /// Index of the feed.
        feed: usize,
        /// Number of records, as it was some seconds ago.
        records: u64,
    },
}

/// What a poll found of a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// Position of the newest record, if there is one. All records before it were delivered or are on their way.
    Known(Option<Position>),
    /// Nothing: in a Cluster, the node of the feed is away, or the feed is moving to another node.
    Unknown,
}

impl Head {
    /// Returns the position of the newest record, or `None` if the poll found nothing.
    pub fn known(self) -> Option<Option<Position>> {
        match self {
            Self::Known(position) => Some(position),
            Self::Unknown => None,
        }
    }
}
