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

    #[test]
    fn letters_that_earlier_versions_wrote_are_read() {
        let payload = b"\x01\x00\x017\x00\x00\x00\x03\x00\x02id\x00\x00\x00\x04news\
            \x02\x00\x017\x00\x00\x00\x01\x00\x00\x00\x00\x00\x07\x00\x01a\x00\x02bc\
            \x03\x00\x017\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x01a\
            \x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04lost";
        let letter = |address: &'static [u8], unread, change| Letter {
            address: Bytes::from_static(address),
            unread,
            change,
        };
        let expected = [
            letter(b"7", 3, MailboxChange::Filed { id: "id".into(), payload: "news".into() }),
            letter(b"7", 1, MailboxChange::Read(vec!["a".into(), "bc".into()])),
            letter(b"7", 0, MailboxChange::Deleted(vec!["a".into()])),
            letter(b"", 0, MailboxChange::Gap("lost".into())),
        ];
        assert_eq!(Letter::read_all(Bytes::from_static(payload)).unwrap(), expected);
    }
}
