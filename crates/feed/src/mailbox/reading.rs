//! Reading mailboxes.

use std::collections::HashMap;
use std::sync::LazyLock;

use bytes::Bytes;
use fred::prelude::Value;
use fred::types::scripts::Script;
use tutti_model::ResetReason;

use super::item::{Item, StoredMark};
use super::layout::lua_number;
use super::mailboxes::{Mailboxes, mailbox_script, unexpected};
use crate::error::Error;
use crate::record::Position;

static LIST: LazyLock<Script> = mailbox_script!("../lua/list.lua");

/// The word that `list.lua` answers for a page before an id that is not in the mailbox.
const UNKNOWN_ID: &str = "unknown";

/// The answer of `list.lua`.
type ListAnswer = (String, u64, u64, u32, String, Vec<Bytes>, Vec<Bytes>, bool, u64);

/// The part of a mailbox that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// All items.
    All,
    /// No items: only the position of the feed and the number of unread items.
    Now,
    /// The items that are later than a position of the feed. `None` is the position before the first record.
    Place(Option<Position>),
    /// The rest of [`Since::All`], of which a part was read.
    Rest {
        /// Position of the last item of that part.
        after: Position,
        /// [`Mailbox::position`] of the first part.
        begun: Position,
    },
}

/// Which of the newest items of a mailbox are read.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// Id of an item, or its place as [`Item::place`] returns it: the page has the items before it. `None` reads the
    /// newest items.
    pub before: Option<&'a str>,
    /// Items that the page has at most. It has at least one.
    pub items: u32,
    /// Bytes of items that the page has at most, approximately, but always one item. 0 is no limit.
    pub bytes: u32,
    /// The page has unread items alone.
    pub unread_alone: bool,
}

/// A mailbox, as far as it was read.
#[derive(Clone, Debug)]
pub struct Mailbox {
    /// Position of the last record of the feed, or `None` if there is none.
    pub position: Option<Position>,
    /// Number of unread items.
    pub unread: u32,
    /// Why the items after the requested position are not all that the reader lacks. All items are here then.
    pub reset: Option<ResetReason>,
    /// Items, oldest first. The items of a [`Page`] come newest first.
    pub items: Vec<Item>,
    /// Marks by the ids of their items. With [`Since::Place`] some may be older than the position; with a [`Page`]
    /// they are those of its items alone.
    pub marks: HashMap<String, StoredMark>,
    /// There are more items than were returned.
    pub more: bool,
    /// When Kafka or Redis last lost items that the mailbox might have, microseconds since 1970.
    pub lost_us: Option<u64>,
}

impl Mailboxes {
    /// Reads a mailbox in one command.
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer, [`Error::Answer`] if the mailbox holds something else than items.
    pub async fn read(&self, address: &str, since: Since) -> Result<Mailbox, Error> {
        self.read_part(address, since, 0).await
    }

    /// Reads about `max_bytes` bytes of the items of a mailbox at most, in one command. 0 is no limit.
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer, [`Error::Answer`] if the mailbox holds something else than items.
    pub async fn read_part(&self, address: &str, since: Since, max_bytes: u32) -> Result<Mailbox, Error> {
        let bucket = self.bucket_of(address.as_bytes());
        let mut words = vec![Value::from(address), max_bytes.into()];
        match since {
            Since::All => words.push("all".into()),
            Since::Now => words.push("now".into()),
            Since::Place(None) => words.extend(["since", "", "0", "0"].map(Value::from)),
            Since::Place(Some(place)) => {
                words.push("since".into());
                words.extend(numbers_of(place));
            }
            Since::Rest { after, begun } => {
                words.push("since".into());
                words.extend(numbers_of(after).into_iter().chain(numbers_of(begun)));
            }
        }
        let mailbox = self.list(bucket, words).await?;
        mailbox.ok_or_else(|| unexpected(|| self.reading(bucket), &UNKNOWN_ID))
    }

    /// Reads a page of the newest items in one command. If `page.before` is a place, Redis reads little more of the
    /// mailbox than the page. Returns `None` if `page.before` is neither a place nor the id of an item.
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer, [`Error::Answer`] if the mailbox holds something else than items.
    pub async fn read_page(&self, address: &str, page: Page<'_>) -> Result<Option<Mailbox>, Error> {
        let Page { before, items, bytes, unread_alone } = page;
        let place = before.and_then(|text| {
            let (seq, time_us) = text.split_once('-')?;
            Some([seq.parse().ok()?, time_us.parse().ok()?])
        });
        let mut words: Vec<Value> =
            vec![address.into(), bytes.into(), "page".into(), before.unwrap_or_default().into()];
        match place {
            Some(numbers) => words.extend(numbers.map(|n| Value::from(lua_number(n)))),
            None => words.extend(["", ""].map(Value::from)),
        }
        words.extend([Value::from(items.max(1)), Value::from(u32::from(unread_alone))]);
        self.list(self.bucket_of(address.as_bytes()), words).await
    }

    /// Runs `list.lua`. Returns `None` if the script does not know the id before which a page should begin.
    async fn list(&self, bucket: u32, words: Vec<Value>) -> Result<Option<Mailbox>, Error> {
        let doing = || self.reading(bucket);
        let (epoch, seq, time_us, unread, reason, items, marks, more, lost_us): ListAnswer =
            self.run(&LIST, bucket, words, doing).await?;
        let position = epoch.parse().ok().map(|epoch| Position { epoch, seq, time_us });
        let items: Option<Vec<Item>> = items.into_iter().map(Item::decode).collect();
        let marks: Option<HashMap<String, StoredMark>> = marks
            .chunks_exact(2)
            .map(|pair| {
                Some((String::from_utf8(pair[0].to_vec()).ok()?, StoredMark::decode(pair[1].clone())?))
            })
            .collect();
        let (Some(items), Some(marks)) = (items, marks) else { return Err(unexpected(doing, &"no items")) };
        let reset = match reason.as_str() {
            "" => None,
            UNKNOWN_ID => return Ok(None),
            word => Some(ResetReason::parse(word).ok_or_else(|| unexpected(doing, &word))?),
        };
        let lost_us = (lost_us > 0).then_some(lost_us);
        Ok(Some(Mailbox { position, unread, reset, items, marks, more, lost_us }))
    }

    /// Says what is being done, for errors.
    fn reading(&self, bucket: u32) -> String {
        format!("reading a mailbox in {}", self.feed(bucket))
    }
}

/// Returns a position as the arguments that scripts take.
fn numbers_of(position: Position) -> [Value; 3] {
    [position.epoch.into(), position.seq, position.time_us].map(|n| Value::from(lua_number(n)))
}
