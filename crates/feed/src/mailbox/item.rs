//! Items and marks, as they lie in a mailbox.

use bytes::{Buf as _, Bytes};

use super::layout::{DELETED, take_text};
use crate::record::Position;

/// An item of a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Number of the record that announced the item.
    pub seq: u64,
    /// Time of that record, microseconds since 1970.
    pub time_us: u64,
    /// When the item expires, microseconds since 1970.
    pub expires_us: u64,
    /// Id of the item.
    pub id: String,
    /// Content of the item.
    pub payload: Bytes,
}

/// A mark, which says that an item was read or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredMark {
    /// The item was deleted; else it was read.
    pub deleted: bool,
    /// Number of the record that announced the mark.
    pub seq: u64,
    /// Time of that record, microseconds since 1970.
    pub time_us: u64,
}

impl Item {
    /// Returns the place of the item in its mailbox as the text that [`Page::before`] takes, also once the item has
    /// gone.
    ///
    /// [`Page::before`]: crate::Page::before
    pub fn place(&self) -> String {
        format!("{}-{}", self.seq, self.time_us)
    }

    pub(super) fn decode(mut bytes: Bytes) -> Option<Self> {
        let (seq, time_us) = (bytes.try_get_u64().ok()?, bytes.try_get_u64().ok()?);
        let expires_us = bytes.try_get_u64().ok()?;
        let id = String::from_utf8(take_text(&mut bytes)?.to_vec()).ok()?;
        Some(Self { seq, time_us, expires_us, id, payload: bytes })
    }
}

impl StoredMark {
    pub(super) fn decode(mut bytes: Bytes) -> Option<Self> {
        let deleted = bytes.try_get_u8().ok()? == DELETED;
        Some(Self { deleted, seq: bytes.try_get_u64().ok()?, time_us: bytes.try_get_u64().ok()? })
    }

    /// Reports whether the mark is news to a reader that was shown everything up to a position.
    pub fn is_later_than(self, position: Option<Position>) -> bool {
        position.is_none_or(|position| self.seq > position.seq || self.time_us > position.time_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let bytes = Bytes::from(bytes);
            let _ = (Item::decode(bytes.clone()), StoredMark::decode(bytes));
        }
    }

    #[test]
    fn an_item_and_a_mark_that_earlier_versions_wrote_are_read() {
        let item = b"\x00\x00\x00\x00\x00\x00\x01\x2c\
            \x00\x06\x65\x17\x28\x98\x80\x01\
            \x00\x06\x65\x17\x28\x98\x80\x05\
            \x00\x02idnews";
        let expected = Item {
            seq: 300,
            time_us: 1_800_000_000_000_001,
            expires_us: 1_800_000_000_000_005,
            id: "id".to_owned(),
            payload: Bytes::from_static(b"news"),
        };
        assert_eq!(Item::decode(Bytes::from_static(item)), Some(expected));
        for (mark, deleted) in [
            (b"\x02\x00\x00\x00\x00\x00\x00\x01\x2c\x00\x06\x65\x17\x28\x98\x80\x01", false),
            (b"\x03\x00\x00\x00\x00\x00\x00\x01\x2c\x00\x06\x65\x17\x28\x98\x80\x01", true),
        ] {
            let expected = StoredMark { deleted, seq: 300, time_us: 1_800_000_000_000_001 };
            assert_eq!(StoredMark::decode(Bytes::from_static(mark)), Some(expected));
        }
    }
}
