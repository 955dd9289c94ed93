//! What a record of a feed of mailboxes says.

use bytes::{Buf as _, Bytes};

use super::layout::{DELETED, FILED, GAP, READ, take, take_text, take_texts};

/// The part of a record that concerns one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The address. Empty for a gap, which concerns all addresses.
    pub address: Bytes,
    /// Number of unread items of the mailbox after the change.
    pub unread: u32,
    /// What happened.
    pub change: MailboxChange,
}

/// What happened in a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailboxChange {
    /// An item was filed.
    Filed {
        /// Id of the item.
        id: Bytes,
        /// Content of the item.
        payload: Bytes,
    },
    /// The items with these ids were read.
    Read(Vec<Bytes>),
    /// The items with these ids were deleted.
    Deleted(Vec<Bytes>),
    /// Something is missing for good, perhaps in every mailbox of the bucket. The text says why.
    Gap(Bytes),
}

impl Letter {
    /// Reads the letters of a record from its payload. Returns `None` if the payload holds something else.
    pub fn read_all(mut payload: Bytes) -> Option<Vec<Self>> {
        let mut letters = Vec::new();
        while payload.has_remaining() {
            let kind = payload.try_get_u8().ok()?;
            let address = take_text(&mut payload)?;
            let unread = payload.try_get_u32().ok()?;
            let id = take_text(&mut payload)?;
            let length = payload.try_get_u32().ok()? as usize;
            let body = take(&mut payload, length)?;
            let change = match kind {
                FILED => MailboxChange::Filed { id, payload: body },
                READ => MailboxChange::Read(take_texts(body)?),
                DELETED => MailboxChange::Deleted(take_texts(body)?),
                GAP => MailboxChange::Gap(body),
                _ => return None,
            };
            letters.push(Self { address, unread, change });
        }
        Some(letters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Letter::read_all(bytes.into());
        }
    }
}
