//! The replay of recorded taxis (data/README.md).
//!
//! Each recorded hour of a taxi is a vehicle of its own, driven twelve times as fast, in an endless loop. The loops
//! of all vehicles begin at different times. A vehicle at the end of its hour leaves the map before it begins again.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};
use tutti_model::{Fix, location};

use crate::now_ms;
use crate::publisher::Publisher;

/// The recording.
const CSV: &str = include_str!("../../../data/san-francisco-taxis.csv");

/// How much faster than it was recorded.
const SPEED_UP: f64 = 12.0;
/// The duration of one recorded hour in the replay, in seconds.
const LOOP_SECONDS: f64 = 3600.0 / SPEED_UP;
/// Fixes that an hour must have at least to be shown as a vehicle.
const MIN_FIXES: usize = 2;
/// The replay skips a pause longer than this, for example after a laptop slept.
const LATE: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct Row {
    timestamp: u32,
    #[serde(rename = "mediaId")]
    media_id: String,
    latitude: f64,
    longitude: f64,
    occupied: u8,
}

/// One moment of the loop.
struct Moment {
    /// Seconds from the beginning of the loop.
    at: f64,
    /// The fix of the vehicle. `None` is the end of its hour.
    fix: Option<Fix>,
    media_id: String,
}

/// A recording to be played in a loop.
pub struct Taxis {
    moments: Vec<Moment>,
    vehicles: usize,
}

impl Taxis {
    /// Reads the recording.
    ///
    /// # Errors
    /// If it is not what it should be.
    pub fn load() -> anyhow::Result<Self> {
        let mut hours: BTreeMap<(String, u32), Vec<Row>> = BTreeMap::new();
        for row in csv::Reader::from_reader(CSV.as_bytes()).deserialize() {
            let row: Row = row.context("the recording of taxis")?;
            hours.entry((row.media_id.clone(), row.timestamp / 3600)).or_default().push(row);
        }
        hours.retain(|_, rows| rows.len() >= MIN_FIXES);
        let vehicles = hours.len();
        let mut moments = Vec::new();
        for (i, ((taxi, hour), mut rows)) in hours.into_iter().enumerate() {
            rows.sort_by_key(|row| row.timestamp);
            let media_id = format!("{taxi}-{hour:02}");
            // Multiples of the golden ratio are evenly spread, whatever their number.
            let phase = (i as f64 * 0.618_033_988_75).fract() * LOOP_SECONDS;
            let at = |second: u32| (f64::from(second % 3600) / SPEED_UP + phase) % LOOP_SECONDS;
            for (n, row) in rows.iter().enumerate() {
                let before = n.checked_sub(1).map(|n| &rows[n]);
                let fix = Some(fix(&media_id, before, row));
                moments.push(Moment { at: at(row.timestamp), fix, media_id: media_id.clone() });
            }
            moments.push(Moment { at: at(3599), fix: None, media_id });
        }
        moments.sort_by(|a, b| a.at.total_cmp(&b.at));
        Ok(Self { moments, vehicles })
    }

    /// Returns the number of vehicles.
    pub fn vehicles(&self) -> usize {
        self.vehicles
    }

    /// Plays the recording for ever, with the current time.
    ///
    /// # Errors
    /// If the Kafka client refuses a record.
    pub async fn play(&self, publisher: &Publisher) -> anyhow::Result<()> {
        let mut began = Instant::now();
        for lap in 0u32.. {
            for moment in &self.moments {
                let due = began + Duration::from_secs_f64(f64::from(lap) * LOOP_SECONDS + moment.at);
                sleep_until(due).await;
                if let Some(late) = Instant::now().checked_duration_since(due).filter(|late| *late > LATE) {
                    began += late;
                }
                let value = moment
                    .fix
                    .as_ref()
                    .map(|fix| location::to_json(&Fix { timestamp_ms: now_ms(), ..fix.clone() }));
                publisher.send(&moment.media_id, value.as_deref().map(str::as_bytes)).await?;
            }
        }
        Ok(())
    }
}

fn fix(media_id: &str, before: Option<&Row>, row: &Row) -> Fix {
    let moved = before.filter(|b| b.timestamp < row.timestamp).map(|b| {
        // The plane is exact enough for the drive of a minute.
        let north = (row.latitude - b.latitude) * 111_320.0;
        let east = (row.longitude - b.longitude) * 111_320.0 * row.latitude.to_radians().cos();
        let seconds = f64::from(row.timestamp - b.timestamp);
        (east.atan2(north).to_degrees().rem_euclid(360.0).round() % 360.0, north.hypot(east) / seconds)
    });
    Fix {
        media_id: media_id.to_owned(),
        timestamp_ms: 0,
        latitude: row.latitude,
        longitude: row.longitude,
        heading: moved.filter(|(_, speed)| *speed > 0.5).map(|(heading, _)| heading),
        speed: moved.map(|(_, speed)| (speed * 10.0).round() / 10.0),
        properties: format!(r#"{{"occupied":{}}}"#, row.occupied == 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifty_seven_taxis_become_over_a_thousand_lively_vehicles() {
        let taxis = Taxis::load().unwrap();
        assert!((1000..1500).contains(&taxis.vehicles()), "{}", taxis.vehicles());
        let per_second = taxis.moments.len() as f64 / LOOP_SECONDS;
        assert!((100.0..300.0).contains(&per_second), "{per_second}");
        for fix in taxis.moments.iter().filter_map(|moment| moment.fix.clone()) {
            // The time is set when a fix is sent.
            let text = location::to_json(&Fix { timestamp_ms: 1_700_000_000_000, ..fix });
            location::decode(tutti_model::Format::Json, text.as_bytes()).unwrap();
        }
    }
}
