//! What the conductor publishes: a state, and the bytes that take a client there from the state
//! before.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;

use tutti_feed::{Cursor, Position};

use crate::frame::{Events, Frame};
use crate::map::MapState;
use crate::view::MapView;

/// What brought nothing for so long is stale: ingest and the waiting room write to each feed once a second.
pub(crate) const STALE_AFTER: Duration = Duration::from_secs(5);

/// Whether news arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It does.
    Live,
    /// Nothing was heard since then (milliseconds since 1970, by the feeds' time), if ever.
    Stale { since_ms: Option<i64> },
}

impl Status {
    /// As the event that clients get.
    pub(crate) fn write(self, events: &mut Events) {
        match self {
            Self::Live => events.event("status", r#"{"state":"live"}"#),
            Self::Stale { since_ms: None } => events.event("status", r#"{"state":"stale","since":null}"#),
            Self::Stale { since_ms: Some(ms) } => {
                events.event("status", &format!(r#"{{"state":"stale","since":{ms}}}"#))
            }
        };
    }
}

/// One step of the map, the same for all clients.
#[derive(Debug)]
pub(crate) struct Tick {
    /// Counts the steps of this edge. A client can be taken on only from the step before.
    pub(crate) no: u64,
    /// Counts the resets: what was shown under another one is void.
    pub(crate) generation: u64,
    /// Why this generation began.
    pub(crate) reset_reason: &'static str,
    /// The state.
    pub(crate) view: MapView,
    pub(crate) cursor: Arc<Cursor>,
    /// The cursor's text.
    pub(crate) id: Arc<str>,
    /// From the step before to this one; nothing if a client would see no difference.
    pub(crate) live: Option<Frame>,
    pub(crate) status: Status,
    /// What to send where nothing was sent for a while: the id moves along, so that a client that
    /// comes back after a quiet time is not taken for one from long ago.
    pub(crate) heartbeat: Frame,
    /// Redis's own heads, and how often they have been asked for.
    pub(crate) heads: Vec<Option<Position>>,
    pub(crate) polls: u64,
    snapshot: OnceLock<Bytes>,
}

/// What a tick is made of besides the map's state.
pub(crate) struct Step {
    pub(crate) no: u64,
    pub(crate) generation: u64,
    pub(crate) reset_reason: &'static str,
    pub(crate) status: Status,
    /// The status is another than in the step before.
    pub(crate) status_changed: bool,
    pub(crate) heads: Vec<Option<Position>>,
    pub(crate) polls: u64,
}

impl Tick {
    /// Takes what changed out of the map, and encodes it: the only place where a live event is
    /// written.
    pub(crate) fn new(map: &mut MapState, step: Step) -> Self {
        let changed = map.take_changed();
        let view = map.view().clone();
        let cursor = view.cursor();
        let id: Arc<str> = cursor.to_text().into();

        let mut events = Events::default();
        if step.status_changed {
            step.status.write(&mut events);
        }
        if !changed.is_empty() {
            let entries: Vec<_> = changed.iter().filter_map(|id| map.entry(id)).collect();
            let mut fixes: Vec<_> = entries.iter().filter(|e| !e.removed).collect();
            fixes.sort_by_key(|e| e.timestamp_ms);
            let removed = entries.iter().filter(|e| e.removed);
            events.array("liveMapLocation", fixes.iter().map(|e| &*e.json));
            events.array("liveMapRemoved", removed.map(|e| &*e.json));
            events.id(&id);
        }
        let live = (!events.is_empty()).then(|| events.frame());
        let heartbeat = Events::default().comment("heartbeat").id(&id).frame();
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
            heartbeat,
            heads,
            polls,
            snapshot: OnceLock::new(),
        }
    }

    /// The whole map as one JSON object, encoded once for all who ask for this step.
    pub(crate) fn snapshot(&self) -> Bytes {
        let encode = || {
            let mut fixes: Vec<_> = self.view.alive().collect();
            fixes.sort_by_key(|e| e.timestamp_ms);
            let all: Vec<&str> = fixes.iter().map(|e| &*e.json).collect();
            format!(r#"{{"id":"{}","locations":[{}]}}"#, self.id, all.join(",")).into()
        };
        self.snapshot.get_or_init(encode).clone()
    }
}
