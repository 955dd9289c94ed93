//! The check of times that come from outside. All are milliseconds since 1970. A time in another unit is refused, because
//! taken as milliseconds it would lie in January 1970 or in a year far ahead.

/// The first plausible time, 2001-01-01. Times in seconds are before it until the year 33000.
pub const FIRST_MS: i64 = 978_307_200_000;
/// The last plausible time, the end of the year 9999. Times in microseconds are after it.
pub const LAST_MS: i64 = 253_402_300_799_999;

/// Why a number is not a time in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongTime {
    /// The number is too small.
    #[error("{0} is before the year 2001: is it in seconds? milliseconds since 1970 are needed")]
    TooEarly(i64),
    /// The number is too large.
    #[error("{0} is after the year 9999: is it in microseconds? milliseconds since 1970 are needed")]
    TooLate(i64),
}

/// Checks that a number is a plausible time in milliseconds since 1970: from the year 2001 to the year 9999.
///
/// # Errors
/// Returns which other unit the number may be in.
pub fn check(time_ms: i64) -> Result<(), WrongTime> {
    match time_ms {
        ..FIRST_MS => Err(WrongTime::TooEarly(time_ms)),
        FIRST_MS..=LAST_MS => Ok(()),
        _ => Err(WrongTime::TooLate(time_ms)),
    }
}

/// Returns whether a number is a plausible time in milliseconds since 1970.
pub fn is_plausible(time_ms: i64) -> bool {
    check(time_ms).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_seconds_or_microseconds_are_told_from_milliseconds() {
        let now_ms = 1_796_071_271_698;
        assert_eq!(check(now_ms), Ok(()));
        assert_eq!(check(now_ms / 1000), Err(WrongTime::TooEarly(1_796_071_271)));
        assert_eq!(check(now_ms * 1000), Err(WrongTime::TooLate(1_796_071_271_698_000)));
        for implausible in [i64::MIN, -1, 0, FIRST_MS - 1, LAST_MS + 1, i64::MAX] {
            assert!(!is_plausible(implausible), "{implausible}");
        }
        assert!(is_plausible(FIRST_MS) && is_plausible(LAST_MS));
    }
}
