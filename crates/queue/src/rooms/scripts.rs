//! The scripts, put together from the files of `src/lua`.

use fred::types::scripts::Script;
use tutti_feed::RECORD_LUA;

/// The files that each script begins with.
const SHARED: [&str; 6] = [
    RECORD_LUA,
    include_str!("../lua/tags.lua"),
    include_str!("../lua/room.lua"),
    include_str!("../lua/lottery.lua"),
    include_str!("../lua/tickets.lua"),
    include_str!("../lua/absence.lua"),
];
const JOIN: &str = include_str!("../lua/join.lua");

/// The script of each operation on a room.
#[derive(Clone)]
pub(super) struct Scripts {
    pub(super) put: Script,
    pub(super) mode: Script,
    pub(super) join: Script,
    pub(super) ticket: Script,
    pub(super) tick: Script,
    pub(super) presence: Script,
    pub(super) relay: Script,
    pub(super) read: Script,
}

impl Scripts {
    /// Puts the scripts together, and maps the text of each by `change`.
    pub(super) fn new(change: impl Fn(String) -> String) -> Self {
        let script = |own: &str| Script::from_lua(change(with_shared(own)));
        Self {
            put: script(include_str!("../lua/put.lua")),
            mode: script(include_str!("../lua/mode.lua")),
            join: script(JOIN),
            ticket: script(include_str!("../lua/ticket.lua")),
            tick: script(include_str!("../lua/tick.lua")),
            presence: script(include_str!("../lua/presence.lua")),
            relay: script(include_str!("../lua/relay.lua")),
            read: script(include_str!("../lua/read.lua")),
        }
    }
}

/// Returns the text of the script that joins, so that a benchmark can run it alone.
pub fn join_script() -> String {
    with_shared(JOIN)
}

/// Returns the text of a script with the shared files before it.
fn with_shared(own: &str) -> String {
    SHARED.concat() + own
}
