//! Positions of devices: what arrives on Kafka, checked, and the JSON that browsers receive.
//!
//! The value of a record is JSON or protobuf ([`Format`](crate::Format)). [`decode`] reads both into a [`Fix`] and
//! checks every field, except how far the timestamp is ahead of the present, which [`check_ahead`] does because this
//! crate has no clock. A value that is refused is an [`Invalid`]. [`to_json`] writes what browsers receive.

mod check;
mod invalid;
mod json;
mod limits;
#[cfg(test)]
mod tests;

use prost::Message as _;

pub use check::{check_ahead, check_media_id, check_timestamp};
pub use invalid::Invalid;
pub use json::to_json;
pub use limits::{MAX_AHEAD_MS, MAX_MEDIA_ID_BYTES, MAX_PROPERTIES_BYTES};

use crate::{Fix, Format};
use check::{check, compact_properties, is_heading, is_speed};
use json::JsonFix;

/// A fix, and which of its optional values were removed because they stand for "not available" or are implausible.
/// A position is not worth less without them.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The fix without the removed values.
    pub fix: Fix,
    /// Whether the heading was removed.
    pub heading_left_out: bool,
    /// Whether the speed was removed.
    pub speed_left_out: bool,
}

/// Reads a fix and checks each of its fields, except how far the timestamp is ahead of the present
/// ([`check_ahead`]).
///
/// # Errors
/// Returns what is wrong with the value.
pub fn decode(format: Format, value: &[u8]) -> Result<Decoded, Invalid> {
    let mut fix = match format {
        Format::Json => crate::json::read::<JsonFix<'_>>(value)?.into_fix()?,
        Format::Protobuf => {
            let mut fix = Fix::decode(value).map_err(|e| Invalid::NotProtobuf(e.to_string()))?;
            if !fix.properties.is_empty() {
                fix.properties = compact_properties(&fix.properties)?;
            }
            fix
        }
    };
    check(&fix)?;
    Ok(Decoded {
        heading_left_out: fix.heading.take_if(|heading| !is_heading(*heading)).is_some(),
        speed_left_out: fix.speed.take_if(|speed| !is_speed(*speed)).is_some(),
        fix,
    })
}
