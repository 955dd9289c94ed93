//! Marking items of a mailbox as read, and deleting them.

use std::sync::LazyLock;

use fred::types::scripts::Script;

use super::mailboxes::{Mailboxes, mailbox_script, unexpected};
use crate::error::Error;

static MARK: LazyLock<Script> = mailbox_script!("../lua/mark.lua");

/// First number of the answer of `mark.lua`: the mailbox has no such item.
const NO_ITEM: i64 = -1;
/// First number of the answer of `mark.lua`: the items were marked before.
const UNCHANGED: i64 = 0;
/// First number of the answer of `mark.lua`: items were marked.
const CHANGED: i64 = 1;

/// What happens to an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The item is marked as read.
    Read,
    /// The item and all before it are marked as read.
    ReadTo,
    /// The item is deleted.
    Delete,
}

impl Mailboxes {
    /// Marks an item, and publishes a record about it. Returns the number of unread items after that, or `None` if
    /// the mailbox has no such item. May be repeated, except that an item that was deleted is not there any more.
    ///
    /// # Errors
    /// [`Error::Redis`] if Redis does not answer, [`Error::Replicas`] if too few replicas have the mark. In both
    /// cases the item may be marked.
    pub async fn mark(&self, address: &str, mark: Mark, id: &str) -> Result<Option<u32>, Error> {
        let what = match mark {
            Mark::Read => "read",
            Mark::ReadTo => "read-to",
            Mark::Delete => "delete",
        };
        let bucket = self.bucket_of(address.as_bytes());
        let doing = || format!("marking in {}", self.feed(bucket));
        let words = vec![address.into(), what.into(), id.into()];
        let answer: Vec<i64> = self.write(&MARK, bucket, words, doing).await?;
        match answer[..] {
            [NO_ITEM] => Ok(None),
            [UNCHANGED | CHANGED, unread] => Ok(Some(unread as u32)),
            _ => Err(unexpected(doing, &answer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lua_constants::lua_number;

    #[test]
    fn the_script_answers_with_the_same_numbers() {
        let numbers =
            ["NO_ITEM", "UNCHANGED", "CHANGED"].map(|name| lua_number(include_str!("../lua/mark.lua"), name));
        assert_eq!(numbers, [NO_ITEM, UNCHANGED, CHANGED]);
    }
}
