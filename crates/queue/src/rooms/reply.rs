//! The numbers that scripts receive and answer.

use fred::prelude::*;

use super::error::Error;

/// The largest number that a script can count to: Lua counts in doubles.
pub(crate) const MAX_NUMBER: u64 = 1 << 53;

/// Returns a number as scripts receive it. A larger number than [`MAX_NUMBER`] becomes that, which no ticket has.
pub(super) fn lua_number(number: u64) -> Value {
    Value::from(number.min(MAX_NUMBER) as i64)
}

/// Returns the integers of a reply.
pub(super) fn integers(reply: &[Value]) -> Vec<u64> {
    reply.iter().filter_map(Value::as_u64).collect()
}

/// Returns the error for a reply that no version of the scripts answers.
pub(super) fn unexpected(doing: &'static str, room: &str, reply: &[Value]) -> Error {
    Error::Answer { doing, room: room.to_owned(), answer: format!("{} values", reply.len()) }
}
