//! How long a visitor has to wait.

use crate::Mode;

/// Returns the seconds until the visitor at `position` (from 1) is admitted, at the recent pace of `pace_milli`
/// admissions per thousand seconds, or `None` if the line does not move.
pub fn eta_seconds(position: u64, pace_milli: u64, mode: Mode) -> Option<u64> {
    let moves = matches!(mode, Mode::Open | Mode::Draining) && pace_milli > 0;
    moves.then(|| (position.saturating_mul(1000)).div_ceil(pace_milli))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_rounded_up_and_there_is_none_where_nothing_moves() {
        assert_eq!(eta_seconds(12, 1300, Mode::Open), Some(10));
        assert_eq!(eta_seconds(1, 100_000, Mode::Draining), Some(1));
        assert_eq!(eta_seconds(12, 1300, Mode::Paused), None);
        assert_eq!(eta_seconds(12, 0, Mode::Open), None);
    }
}
