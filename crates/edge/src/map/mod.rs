//! The live map: from the feeds `locations.<shard>` in Redis to the streams and documents of clients.
//!
//! - **Following.** One task, [`follower::MapFollower`], receives the records, heads and resets of all shards.
//! - **Folding.** The follower applies each record to [`state::MapState`]. A `mediaId` has one [`entry::Entry`]: the
//!   newest fix, or a tombstone that is kept for as long as the log. A fix is removed by the first record of its shard
//!   whose time is later than the fix by more than `locations.stale_after_seconds`. Entries lie in a persistent map with an index by tiles ([`tile_index::TileIndex`]), so
//!   a [`view::MapView`] is cheap to clone. Nothing is published until the heads of the first poll are reached.
//! - **Publishing.** At most once in `map.tick_ms` the follower makes a [`tick::Tick`]: a view, its cursor, and one
//!   frame with what changed. The first change after a quiet time is
//!   published at once, because the pause counts from the last tick. Ticks go to all workers over a broadcast channel. A tick without changes still carries
//!   heads and status.
//! - **Areas.** A box becomes an [`area::Area`], at most 16 tiles of one zoom. [`tile_updates::Tiles`] groups the
//!   changes of a tick by tile and encodes each tile once, when the first client looks there. Cells of clusters are
//!   counted from the view, once for each tick and zoom.
//! - **Writing.** [`viewers::MapStreams`] of each worker writes the frames of a tick to all streams that are at the step
//!   before, without waiting. A stream that is new, that resumes, or whose socket would block leaves the list and
//!   becomes a task, until [`catch_up::CatchUp`] says that it has arrived.
//! - **Replaying.** A [`replay::Replay`] walks over the newest view in chunks of 16 KB. For an area it visits only the
//!   entries that the index finds. What changes behind the walk comes with the next, shorter replay, or live.
//!   A replay always reads the newest view, but ends with the id of the step at which it began, because only that is
//!   covered for certain. If the walk of a resuming client is so slow that a tombstone which it would need has been
//!   dropped meanwhile, the client receives a reset (`too_old`). A step that spans so long begins a new generation with
//!   the same reason.
//! - **Documents.** [`copies::Copies`] makes copies of the whole map, one for each step and form, and of areas
//!   ([`snapshot`]), and counts their bytes for as long as clients receive them.
//!
//! *Architecture Invariant:* [`state`] has no clock and does no IO. Shards may be interleaved in any order with the same
//! result. Property tests check both. They also check that the kept log gives the same map as all records.
//!
//! *Architecture Invariant:* a live frame is encoded once, never once per client. Only replays are a client's own.
//!
//! *Architecture Invariant:* what a client of an area receives is a function of the tick and the area. A client that
//! applies it in order holds the fold of the records, filtered by the area. A property test holds steps and replays to
//! it.
//!
//! *Architecture Invariant:* an `id:` is sent only when everything that it covers has been sent. Of several events of
//! one step, the last carries it.
//!
//! *Architecture Invariant:* there is no await between reading the current step and joining the list of streams that are
//! at it, so that no other step can come between.

pub(crate) mod area;
pub(crate) mod catch_up;
pub(crate) mod copies;
pub(crate) mod copy_bytes;
pub(crate) mod entry;
pub(crate) mod follower;
pub(crate) mod replay;
pub(crate) mod routes;
pub(crate) mod settings;
pub(crate) mod shown;
pub(crate) mod snapshot;
pub(crate) mod state;
pub(crate) mod tick;
pub(crate) mod tile_index;
pub(crate) mod tile_updates;
pub(crate) mod view;
pub(crate) mod viewers;
