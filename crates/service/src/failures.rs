//! The log of failed requests. The caller of a request that failed for no fault of its own gets a fixed sentence and
//! a request id; the log gets the error under the same id.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

/// Failures that are logged in a second at most. Anyone may cause failures.
const LINES_PER_SECOND: u64 = 100;
const SECOND: Duration = Duration::from_secs(1);

/// Logs the failed requests of one service. Cheap to clone; all clones share the bound.
#[derive(Clone, Default)]
pub struct Failures(Arc<Mutex<Window>>);

/// The second that began last.
#[derive(Default)]
struct Window {
    began: Option<Instant>,
    logged: u64,
    left_out: u64,
}

impl Failures {
    /// Logs why a request failed. Returns the request id of the line, which the caller may learn.
    pub fn log(&self, doing: &str, error: &dyn Display) -> String {
        let request_id = format!("{:016x}", rand::random::<u64>());
        let (is_logged, left_out) =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).count(Instant::now());
        if left_out > 0 {
            warn!(left_out, "more requests failed in a second than are logged");
        }
        if is_logged {
            warn!(request_id, %error, "{doing} failed");
        }
        request_id
    }
}

impl Window {
    /// Counts a failure. Returns whether it is logged, and how many of the seconds before were left out, which is
    /// reported once.
    fn count(&mut self, now: Instant) -> (bool, u64) {
        let mut left_out = 0;
        if self.began.is_none_or(|began| now.duration_since(began) >= SECOND) {
            left_out = self.left_out;
            *self = Self { began: Some(now), ..Self::default() };
        }
        let is_logged = self.logged < LINES_PER_SECOND;
        *(if is_logged { &mut self.logged } else { &mut self.left_out }) += 1;
        (is_logged, left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_lines_and_the_next_says_how_many_were_left_out() {
        let (mut window, began) = (Window::default(), Instant::now());
        for _ in 0..LINES_PER_SECOND {
            assert_eq!(window.count(began), (true, 0));
        }
        for _ in 0..7 {
            assert_eq!(window.count(began + SECOND / 2), (false, 0));
        }
        assert_eq!(window.count(began + SECOND), (true, 7));
        assert_eq!(window.count(began + SECOND), (true, 0));
    }

    #[test]
    fn each_failure_has_an_id_of_its_own() {
        let failures = Failures::default();
        let ids = [0; 2].map(|_| failures.log("a test", &"it must"));
        assert_ne!(ids[0], ids[1]);
        assert!(ids.iter().all(|id| id.len() == 16));
    }
}
