//! The checks of the fields of a position.

use super::invalid::Invalid;
use super::limits::{MAX_AHEAD_MS, MAX_MEDIA_ID_BYTES, MAX_PROPERTIES_BYTES};
use crate::{Fix, json, time};

/// The speed by which AIS says "not available", in tenths of a knot. It arrives unconverted where a producer does not
/// look for it.
const AIS_NO_SPEED: f64 = 1023.0;

/// Checks that the time of a fix or removal is in milliseconds.
///
/// # Errors
/// Returns [`Invalid::Timestamp`] if the time must be in another unit.
pub fn check_timestamp(timestamp_ms: i64) -> Result<(), Invalid> {
    time::check(timestamp_ms).map_err(Invalid::Timestamp)
}

/// Checks that a timestamp is at most [`MAX_AHEAD_MS`] ahead of `now_ms`.
///
/// # Errors
/// Returns [`Invalid::Future`] if it is further ahead.
pub fn check_ahead(timestamp_ms: i64, now_ms: i64) -> Result<(), Invalid> {
    let ahead = timestamp_ms.saturating_sub(now_ms);
    if ahead > MAX_AHEAD_MS { Err(Invalid::Future(ahead)) } else { Ok(()) }
}

/// Checks a mediaId, such as the key of a removal.
///
/// # Errors
/// Returns [`Invalid::NoMediaId`] or [`Invalid::MediaIdTooLong`].
pub fn check_media_id(id: &str) -> Result<(), Invalid> {
    match id.len() {
        0 => Err(Invalid::NoMediaId),
        1..=MAX_MEDIA_ID_BYTES => Ok(()),
        more => Err(Invalid::MediaIdTooLong(more)),
    }
}

/// Checks the fields of a fix that it cannot be without.
pub(super) fn check(fix: &Fix) -> Result<(), Invalid> {
    check_media_id(&fix.media_id)?;
    check_timestamp(fix.timestamp_ms)?;
    if !(-90.0..=90.0).contains(&fix.latitude) {
        return Err(Invalid::Latitude(fix.latitude));
    }
    if !(-180.0..=180.0).contains(&fix.longitude) {
        return Err(Invalid::Longitude(fix.longitude));
    }
    Ok(())
}

/// Returns whether a heading is plausible. AIS sends 511 for "not available"; others send -1.
pub(super) fn is_heading(degrees: f64) -> bool {
    (0.0..=360.0).contains(&degrees)
}

/// Returns whether a speed is plausible. AIS sends 1023 for "not available"; others send -1.
pub(super) fn is_speed(metres_a_second: f64) -> bool {
    metres_a_second >= 0.0 && metres_a_second.is_finite() && metres_a_second != AIS_NO_SPEED
}

/// Checks `properties` and returns them on one line, because a line feed would end the `data:` line of an SSE event.
pub(super) fn compact_properties(text: &str) -> Result<String, Invalid> {
    if text.len() > 4 * MAX_PROPERTIES_BYTES {
        return Err(Invalid::Properties(format!("{} bytes", text.len())));
    }
    json::check_any(text).map_err(|e| Invalid::Properties(e.to_string()))?;
    let (compact, _) = json::compact(text);
    if !compact.starts_with('{') {
        return Err(Invalid::Properties("another JSON value".to_owned()));
    }
    if compact.len() > MAX_PROPERTIES_BYTES {
        return Err(Invalid::Properties(format!("{} bytes", compact.len())));
    }
    Ok(compact)
}
