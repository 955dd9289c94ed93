//! Cursors: the position of a stream in each feed that it shows, as the short opaque text of an SSE `id:`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::record::Position;

/// One position for each feed, in the order in which the stream lists its feeds. `None` stands for a feed without a
/// record.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Cursor(pub Vec<Option<Position>>);

/// Positions in a cursor at most. Tutti writes no longer ones.
const MAX_FEEDS: usize = 1024;
/// Characters of the text of one position at most.
const MAX_PLACE_CHARS: usize = 36;
/// First byte of the part of a feed without a record.
const NO_POSITION: u8 = 0;
/// First byte of the part of a feed with a position.
const POSITION: u8 = 1;

impl Cursor {
    /// Returns the cursor as text: base64url of one part for each feed, which is a zero byte, or a one followed by
    /// the epoch (4 bytes), the number and the time (both LEB128).
    pub fn to_text(&self) -> String {
        let mut bytes = Vec::with_capacity(self.0.len() * 18);
        for place in &self.0 {
            match place {
                None => bytes.push(NO_POSITION),
                Some(p) => {
                    bytes.push(POSITION);
                    bytes.extend(p.epoch.to_be_bytes());
                    push_varint(&mut bytes, p.seq);
                    push_varint(&mut bytes, p.time_us);
                }
            }
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Returns the cursor of a single feed as text.
    pub fn text_of(place: Option<Position>) -> String {
        Self(vec![place]).to_text()
    }

    /// Reads a cursor from text. Returns `None` for any text that [`Cursor::to_text`] does not write.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_FEEDS * MAX_PLACE_CHARS {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let mut rest = bytes.as_slice();
        let mut places = Vec::new();
        while let Some((&tag, after)) = rest.split_first() {
            rest = after;
            places.push(match tag {
                NO_POSITION => None,
                POSITION => {
                    let (epoch, after) = rest.split_first_chunk::<4>()?;
                    rest = after;
                    let epoch = u32::from_be_bytes(*epoch);
                    let seq = take_varint(&mut rest)?;
                    Some(Position { epoch, seq, time_us: take_varint(&mut rest)? })
                }
                _ => return None,
            });
        }
        (places.len() <= MAX_FEEDS).then_some(Self(places))
    }
}

fn push_varint(bytes: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            return None;
        }
        n |= part << shift;
        if byte & 0x80 == 0 {
            // Only the shortest form is read, so that one cursor has one text.
            return (byte != 0 || shift == 0).then_some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn places() -> impl Strategy<Value = Vec<Option<Position>>> {
        let place = (any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(epoch, seq, time_us)| Position {
            epoch,
            seq,
            time_us,
        });
        proptest::collection::vec(proptest::option::of(place), 0..9)
    }

    proptest! {
        #[test]
        fn a_cursor_survives_its_text(places in places()) {
            let cursor = Cursor(places);
            let text = cursor.to_text();
            prop_assert!(text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'));
            prop_assert_eq!(Cursor::parse(&text), Some(cursor));
        }

        #[test]
        fn no_text_makes_parsing_panic_and_what_parses_is_its_own_text(text in "[A-Za-z0-9_-]{0,80}") {
            if let Some(cursor) = Cursor::parse(&text) {
                prop_assert_eq!(cursor.to_text(), text);
            }
        }
    }

    #[test]
    fn the_text_of_a_cursor_is_the_one_that_earlier_versions_wrote() {
        let place = Position { epoch: 0x0102_0304, seq: 300, time_us: 1_800_000_000_000_001 };
        let other = Position { epoch: 7, seq: 1, time_us: 5 };
        let largest = Position { epoch: u32::MAX, seq: 1 << 63, time_us: u64::MAX };
        for (text, places) in [
            ("", vec![]),
            ("AA", vec![None]),
            ("AQECAwSsAoGA4sTyopkD", vec![Some(place)]),
            ("AQECAwSsAoGA4sTyopkDAAEAAAAHAQU", vec![Some(place), None, Some(other)]),
            ("Af____-AgICAgICAgIAB____________AQ", vec![Some(largest)]),
        ] {
            let cursor = Cursor(places);
            assert_eq!(cursor.to_text(), text);
            assert_eq!(Cursor::parse(text), Some(cursor));
        }
    }

    #[test]
    fn four_feeds_fit_into_ninety_characters() {
        let place = Position { epoch: u32::MAX, seq: 100_000_000, time_us: 1_800_000_000_000_000 };
        assert!(Cursor(vec![Some(place); 4]).to_text().len() <= 96);
    }
}
