//! Notifications: sending them, inboxes and their streams, marks, and who is online.
//!
//! An inbox is a *mailbox* in Redis: a short list with an *address*, `user:7` or `topic:news`. Ingest files each
//! notification in the mailboxes of its recipients, and announces it in feeds that many mailboxes share,
//! `inbox.<bucket>`. A record of such a feed holds *letters*, at most one for each address. This folder follows the
//! feeds of all buckets and keeps nothing of them: a device that is connected receives what comes, and a device that
//! was away has its mailboxes read.
//!
//! The path of a notification:
//!
//! 1. [`routes`]: the handler `send` checks the notification and asks the notifications' service ([`client`]), which
//!    answers once Kafka has all records of it. Marks go to the same service, which writes them to the mailbox
//!    (`feed/src/lua/mark.lua`).
//! 2. [`follower`]: the `InboxFollower` is one task, which follows all buckets over one connection, from the newest
//!    record on. After at most 32 events it sends an `InboxStep` to all workers: records with their letters, and
//!    `Change::Reset` for a bucket whose records may be incomplete.
//! 3. [`events`]: an `EncodedLetter` is the event of a letter, which the first worker that needs it encodes for all.
//!    The `id:` of a device names a place for each of its mailboxes; `id_of` writes it and `shown_of` reads it.
//! 4. [`devices`]: each worker has one `InboxStreams`, whose `WorkerInboxes` knows the subscribers of each address and
//!    the devices that are up to date, in a [`roster`]. `deliver_letters` writes to each of them a line with the device's
//!    own id and then the shared bytes, in one write.
//! 5. [`catch_up`]: a device that is new, behind or resuming becomes a task (`bring_device`). It reads one mailbox
//!    after the other in parts of 64 KB and writes what the device lacks (`show`; `events::missed` chooses it from what
//!    `list.lua` returned), and reads again until `arrive` says that nothing is missing. A step that the worker missed, a `Change::Reset` and a gap make tasks of the devices
//!    concerned.
//! 6. [`connections`]: each stream holds a `Connection`. Once a second the edge writes to the registry in Redis which
//!    devices came and left, and every 5 s it renews its own lease there.
//!
//! Nothing is lost between reading and joining the list. A device subscribes to its addresses before it reads. From
//! then on the worker notes for each address the last record that had a letter for it. What was filed before the
//! reading is in what was read, and the worker receives what was filed after it. So `WorkerInboxes::join` either finds
//! that the device's place covers the last record, or the device reads again. If the device is ahead of the worker it
//! waits; otherwise it would receive those letters twice.
//!
//! Where a worker does not know which records it missed (at the start, and after `Change::Reset`), the devices in the
//! list read again at the bucket's next record, and that record counts as the last one of every address of the bucket.
//! After missed steps, the position of the step that arrived counts so.
//!
//! *Architecture Invariant:* an event of an inbox is encoded once for all devices; only the line with the id is each
//! device's own.
//!
//! *Architecture Invariant:* between `WorkerInboxes::join` and the list there is no await, so no step can come between.
//!
//! *Architecture Invariant:* delivery never depends on the registry; an edge picks its users' letters out of the feeds.

pub(crate) mod catch_up;
pub(crate) mod client;
pub(crate) mod connections;
pub(crate) mod device;
pub(crate) mod devices;
pub(crate) mod events;
pub(crate) mod follower;
mod proto;
pub(crate) mod roster;
pub(crate) mod routes;
pub(crate) mod settings;
