//! Mailboxes: a short list of items for each address, and feeds that say what happens in them.
//!
//! Readers that are connected follow the feed of an address; readers that were away read its mailbox. The path of an
//! item:
//!
//! 1. [`Mailboxes::file`] runs `file.lua` for the items of one *bucket*, a feed that many addresses share. The script
//!    drops what has expired and what was filed before, appends each other item to the list of its address, cuts the
//!    list by count and bytes, and adds a [`Letter`] to a record of the feed: address, unread count, id and payload.
//! 2. Followers of the feed read the letters of a record with [`Letter::read_all`].
//! 3. A reader that was away calls [`Mailboxes::read`] with the position that it was shown ([`Since`]). `list.lua`
//!    returns the items that are later, or all items and the reason why that is not enough.
//! 4. [`Mailboxes::mark`] runs `mark.lua`, which marks items as read or deletes one, and publishes a letter about it.
//! 5. [`Mailboxes::announce_gap`] tells all readers of a bucket that something is missing for good.
//!
//! *Invariant:* the id is the guard. To file an item again changes nothing, in whichever order, so callers repeat
//! freely.
//!
//! # What a mailbox knows
//!
//! - An id is known by 8 bytes of its SHA-1, in one of two sets. One set is filled until it is 24 hours old and has
//!   512 ids (or twice what a mailbox keeps); then the other one is emptied and filled. So an id is known for 24
//!   hours, and for as long as its item is there.
//! - Items and marks carry number and time of the record that announced them. A reader that comes back lacks those
//!   with a later number *or* a later time: after a failover that gave numbers out again, a new item may have a
//!   number that the reader was shown, but not an earlier time.
//! - The items alone are not enough, and the reader needs a reset, if the feed has another epoch (`new_epoch`), if the feed is behind the
//!   reader or its log has another record at that number (`history_changed`), if a gap was announced since (`gap`),
//!   or if a later item or mark was cut off (`too_old`). For a reader that is shown everything in parts, these
//!   checks use the position at which it began ([`Since::Rest`]); otherwise a gap newer than the items would be a
//!   reset in each part, for ever.
//! - The log is asked for the exact record of the reader's position, because numbers that were given out again may have
//!   overtaken it: comparing numbers alone would not show that the reader was shown something that no longer exists.
//!   Where the log (300 s) no longer reaches back to the position, this check is left out, and a later number or a
//!   later time decides alone.
//! - Marks of deleted items stay for readers that do not know them yet. Above twice what a mailbox keeps and 64 more,
//!   the older half of them goes and counts as cut off.
//! - Items that expire leave the list without a record, since each item says when it expires.

mod filing;
mod item;
mod layout;
mod letter;
mod mailboxes;
mod marking;
mod reading;

pub use self::filing::{FileOutcome, Filing};
pub use self::item::{Item, StoredMark};
pub use self::letter::{Letter, MailboxChange};
pub use self::mailboxes::{MailboxLimits, Mailboxes};
pub use self::marking::Mark;
pub use self::reading::{Mailbox, Page, Since};
