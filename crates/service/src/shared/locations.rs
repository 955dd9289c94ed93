//! The settings of the live map.

use std::time::Duration;

use crate::settings::Settings;

/// A fix may lie this far in the future by the clock of ingest, in seconds.
const AHEAD_SECONDS: u64 = 10;

/// What defines the live map. All services that share a Redis must agree on it.
#[derive(Clone, Debug)]
pub struct Locations {
    /// Number of feeds that the map is spread over.
    pub shards: u32,
    /// Age at which a fix leaves the map.
    pub stale_after: Duration,
    /// Age at which a record leaves the log of a feed.
    pub log_age: Duration,
}

impl Locations {
    /// Reads the settings `locations.*`.
    pub fn configure(settings: &mut Settings) -> Self {
        let shards = settings.number(
            "locations.shards",
            4u32,
            1..=256,
            "feeds that the live map is spread over; a Kafka partition goes to partition modulo shards",
        );
        let stale_after = settings.number(
            "locations.stale_after_seconds",
            30u64,
            1..=86_400,
            "seconds after which a device that sent nothing leaves the map",
        );
        Self {
            shards,
            stale_after: Duration::from_secs(stale_after),
            // A fix lives for stale_after, and for as long again as it lay ahead. The log keeps three times that:
            // twice as long as a fix lives is left for clients that come back.
            log_age: Duration::from_secs(3 * (stale_after + AHEAD_SECONDS)),
        }
    }

    /// Returns the settings that all services must agree on, by their names.
    pub fn agreement(&self) -> [(&'static str, String); 2] {
        [
            ("locations.shards", self.shards.to_string()),
            ("locations.stale_after_seconds", self.stale_after.as_secs().to_string()),
        ]
    }
}
