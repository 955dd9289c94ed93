//! Mailboxes: a short list of items for each address, and feeds that say what happens in them.
//!
//! Readers that are connected follow the feed of an address; readers that were away read its mailbox. The path of an item:
//!
//! 1. [`Mailboxes::file`] runs `file.lua` for the items of one *bucket*, a feed that many addresses share. The script drops
//!    what has expired and what was filed before, appends each other item to the list of its address, cuts the list by count
//!    and bytes, and adds a [`Letter`] to a record of the feed: address, unread count, id and payload.
//! 2. Followers of the feed read the letters of a record with [`Letter::read_all`].
//! 3. A reader that was away calls [`Mailboxes::read`] with the position that it was shown ([`Since`]). `list.lua` returns the
//!    items that are later, or all items and the reason why that is not enough.
//! 4. [`Mailboxes::mark`] runs `mark.lua`, which marks items as read or deletes one, and publishes a letter about it.
//! 5. [`Mailboxes::announce_gap`] tells all readers of a bucket that something is missing for good.
//!
//! *Invariant:* the id is the guard. To file an item again changes nothing, in whichever order, so callers repeat freely.

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
