//! A record's place and layout, as `record.lua` writes it.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// The place of a record in its feed. Two histories that share numbers differ in times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Drawn when the feed's head was first written; a Redis that came back empty has another.
    pub epoch: u32,
    /// 1 for the first record of an epoch, and one more for each.
    pub seq: u64,
    /// The feed's time, microseconds since 1970; grows with each record.
    pub time_us: u64,
}

impl Position {
    /// Whether a record with this number comes next.
    pub fn is_followed_by(self, seq: u64) -> bool {
        self.seq.checked_add(1) == Some(seq)
    }

    /// Whether who has this place has all up to the other. Places of two histories with the same epoch,
    /// as a failover makes them, cover one another only where nothing tells them apart.
    pub fn covers(self, other: Self) -> bool {
        self == other || (self.epoch == other.epoch && self.seq > other.seq && self.time_us > other.time_us)
    }
}

/// One record of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub position: Position,
    /// The `time_us` of the record before it, 0 for the first: the link of the chain.
    pub prev_time_us: u64,
    /// What was appended. May be empty: such a record moves position and time.
    pub payload: Bytes,
}

/// Bytes of a record before its payload.
pub const HEADER_BYTES: usize = 28;

impl Record {
    /// Reads a record, or `None` if there are too few bytes for one.
    pub fn decode(mut bytes: Bytes) -> Option<Self> {
        if bytes.len() < HEADER_BYTES {
            return None;
        }
        let position = Position { epoch: bytes.get_u32(), seq: bytes.get_u64(), time_us: bytes.get_u64() };
        Some(Self { position, prev_time_us: bytes.get_u64(), payload: bytes })
    }

    /// Writes a record as `record.lua` does.
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
        let (lost, anew) = (at(7, 70), at(6, 80));
        assert!(!lost.covers(anew) && !anew.covers(lost) && !at(7, 90).covers(lost));
        assert!(!at(6, 60).covers(Position { epoch: 2, ..at(5, 50) }));
    }

    #[test]
    fn fewer_bytes_than_a_header_are_no_record() {
        assert_eq!(Record::decode(Bytes::from_static(&[0; HEADER_BYTES - 1])), None);
        assert!(Record::decode(Bytes::from_static(&[0; HEADER_BYTES])).is_some());
    }
}
