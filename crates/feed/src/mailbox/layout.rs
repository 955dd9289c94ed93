//! The numbers and texts that the scripts of mailboxes and Rust both write and read.

use bytes::{Buf as _, Bytes};

/// Kind of a letter: an item was filed.
pub(super) const FILED: u8 = 1;
/// Kind of a letter, and of a mark: items were read.
pub(super) const READ: u8 = 2;
/// Kind of a letter, and of a mark: items were deleted.
pub(super) const DELETED: u8 = 3;
/// Kind of a letter: something is missing for good.
pub(super) const GAP: u8 = 4;

/// Largest whole number that Lua counts to. Callers may have made up the numbers of a position.
const LUA_MAX: u64 = 1 << 53;

/// Returns a number as an argument of a script.
pub(super) fn lua_number(number: u64) -> i64 {
    number.min(LUA_MAX) as i64
}

/// Takes a number of bytes, or returns `None` if there are fewer.
pub(super) fn take(bytes: &mut Bytes, length: usize) -> Option<Bytes> {
    (bytes.remaining() >= length).then(|| bytes.split_to(length))
}

/// Takes a text that follows its length in two bytes.
pub(super) fn take_text(bytes: &mut Bytes) -> Option<Bytes> {
    let length = bytes.try_get_u16().ok()?;
    take(bytes, length.into())
}

/// Takes texts, each after its length in two bytes, until nothing is left.
pub(super) fn take_texts(mut bytes: Bytes) -> Option<Vec<Bytes>> {
    let mut texts = Vec::new();
    while bytes.has_remaining() {
        texts.push(take_text(&mut bytes)?);
    }
    Some(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_number_letters_and_marks_alike() {
        let number = |name| crate::lua_constants::lua_number(include_str!("../lua/mailbox.lua"), name);
        let numbers = ["FILED", "READ", "DELETED", "GAP"].map(number);
        assert_eq!(numbers, [FILED, READ, DELETED, GAP].map(i64::from));
    }
}
