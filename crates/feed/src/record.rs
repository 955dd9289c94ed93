//! Records: their positions, and their layout in bytes, which `record.lua` writes.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// The position of a record in its feed. Two histories of a feed that share a number differ in the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Number that the feed drew when its first record was written. After a Redis came back empty the feed has
    /// another.
    pub epoch: u32,
    /// Number of the record: 1 for the first one of an epoch.
    pub seq: u64,
    /// Time of the record, microseconds since 1970. It grows from record to record.
    pub time_us: u64,
}

impl Position {
    /// Reports whether the record with this number comes next.
    pub fn is_followed_by(self, seq: u64) -> bool {
        self.seq.checked_add(1) == Some(seq)
    }

    /// Reports whether a reader that has everything up to this position has everything up to the other. Positions of
    /// two histories with the same epoch, which a failover may create, cover each other only where nothing tells them
    /// apart.
    pub fn covers(self, other: Self) -> bool {
        self == other || (self.epoch == other.epoch && self.seq > other.seq && self.time_us > other.time_us)
    }
}

/// One record of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Position of the record.
    pub position: Position,
    /// Time of the record before this one; 0 for the first. It links the records to a chain.
    pub prev_time_us: u64,
    /// Content of the record. May be empty: such a record only moves position and time.
    pub payload: Bytes,
}

/// Bytes before the payload of a record: epoch (4), seq, time and time of the record before (8 each), all big-endian.
pub(crate) const HEADER_BYTES: usize = 28;

impl Record {
    /// Reads a record. Returns `None` if there are too few bytes for one.
    pub fn decode(mut bytes: Bytes) -> Option<Self> {
        if bytes.len() < HEADER_BYTES {
            return None;
        }
        let position = Position { epoch: bytes.get_u32(), seq: bytes.get_u64(), time_us: bytes.get_u64() };
        Some(Self { position, prev_time_us: bytes.get_u64(), payload: bytes })
    }

    /// Writes a record in the layout of `record.lua`.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + self.payload.len());
        bytes.put_u32(self.position.epoch);
        bytes.put_u64(self.position.seq);
        bytes.put_u64(self.position.time_us);
        bytes.put_u64(self.prev_time_us);
        bytes.put_slice(&self.payload);
        bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_survives_its_bytes(
            epoch: u32, seq: u64, time_us: u64, prev_time_us: u64,
            payload in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let record = Record {
                position: Position { epoch, seq, time_us }, prev_time_us, payload: payload.into(),
            };
            prop_assert_eq!(Record::decode(record.encode()), Some(record));
        }
    }

    #[test]
    fn what_a_lost_history_had_covers_nothing_of_the_one_that_took_its_place() {
        let at = |seq, time_us| Position { epoch: 1, seq, time_us };
        assert!(at(5, 50).covers(at(5, 50)) && at(6, 60).covers(at(5, 50)) && !at(5, 50).covers(at(6, 60)));
        let (lost, new) = (at(7, 70), at(6, 80));
        assert!(!lost.covers(new) && !new.covers(lost) && !at(7, 90).covers(lost));
        assert!(!at(6, 60).covers(Position { epoch: 2, ..at(5, 50) }));
    }

    #[test]
    fn the_bytes_of_a_record_are_those_that_earlier_versions_wrote() {
        let position = Position { epoch: 0x0102_0304, seq: 300, time_us: 1_800_000_000_000_001 };
        let prev_time_us = 1_800_000_000_000_000;
        let record = Record { position, prev_time_us, payload: Bytes::from_static(b"ab") };
        let bytes: &[u8] = b"\x01\x02\x03\x04\
            \x00\x00\x00\x00\x00\x00\x01\x2c\
            \x00\x06\x65\x17\x28\x98\x80\x01\
            \x00\x06\x65\x17\x28\x98\x80\x00\
            ab";
        assert_eq!(record.encode(), bytes);
        assert_eq!(Record::decode(Bytes::from_static(bytes)), Some(record));
    }

    #[test]
    fn fewer_bytes_than_a_header_are_no_record() {
        assert_eq!(Record::decode(Bytes::from_static(&[0; HEADER_BYTES - 1])), None);
        assert!(Record::decode(Bytes::from_static(&[0; HEADER_BYTES])).is_some());
    }
}
