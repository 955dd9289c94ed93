//! A city of simulated devices that drive about, for load of any size.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::{Instant, sleep_until};
use tutti_model::{Fix, location};

use crate::now_ms;
use crate::publisher::Publisher;

/// What to simulate.
#[derive(Clone, Debug)]
pub struct City {
    /// The number of devices.
    pub devices: u32,
    /// Fixes a second, of all devices together.
    pub rate: f64,
    /// The number of fixes after which the simulation ends. `None` never ends it.
    pub fixes: Option<u64>,
    /// The seed of all random choices. The same seed drives the same ways.
    pub seed: u64,
    /// The distance from the centre, in degrees, at which devices turn round.
    pub radius: f64,
}

/// The time between two steps, in which the fixes that are due are sent.
const STEP: Duration = Duration::from_millis(10);
/// The centre of the city: latitude and longitude.
pub const CENTRE: (f64, f64) = (37.7749, -122.4194);

struct Device {
    latitude: f64,
    longitude: f64,
    heading: f64,
    /// The speed in metres a second.
    speed: f64,
    moved_at: Instant,
}

impl City {
    /// Drives the devices in turn.
    ///
    /// # Errors
    /// If the Kafka client refuses a record.
    pub async fn run(&self, publisher: &Publisher) -> anyhow::Result<()> {
        anyhow::ensure!(self.devices > 0, "a city needs at least one device");
        anyhow::ensure!(self.radius > 0.0, "a city needs a radius");
        anyhow::ensure!(self.rate > 0.0 && self.rate.is_finite(), "the rate must be above 0");
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut devices: Vec<Device> =
            (0..self.devices).map(|_| Device::new(self.radius, &mut random)).collect();
        let began = Instant::now();
        let mut sent = 0u64;
        loop {
            let due = (began.elapsed().as_secs_f64() * self.rate) as u64 + 1;
            while sent < due {
                if self.fixes.is_some_and(|fixes| sent >= fixes) {
                    return Ok(());
                }
                let number = (sent % u64::from(self.devices)) as usize;
                let fix = devices[number].drive(number, self.radius, &mut random);
                publisher.send(&fix.media_id, Some(location::to_json(&fix).as_bytes())).await?;
                sent += 1;
            }
            sleep_until(Instant::now() + STEP).await;
        }
    }
}

impl Device {
    fn new(radius: f64, random: &mut StdRng) -> Self {
        Self {
            latitude: CENTRE.0 + random.random_range(-radius..radius),
            longitude: CENTRE.1 + random.random_range(-radius..radius),
            heading: random.random_range(0.0..360.0),
            speed: random.random_range(5.0..20.0),
            moved_at: Instant::now(),
        }
    }

    fn drive(&mut self, number: usize, radius: f64, random: &mut StdRng) -> Fix {
        let metres = self.speed * self.moved_at.elapsed().as_secs_f64();
        self.moved_at = Instant::now();
        let heading = self.heading.to_radians();
        self.latitude += metres * heading.cos() / 111_320.0;
        self.longitude += metres * heading.sin() / (111_320.0 * self.latitude.to_radians().cos());
        let away = (self.latitude - CENTRE.0).hypot(self.longitude - CENTRE.1) > radius;
        let turn = if away { 180.0 } else { random.random_range(-20.0..20.0) };
        self.heading = (self.heading + turn).rem_euclid(360.0);
        let places = |n: f64, scale: f64| (n * scale).round() / scale;
        Fix {
            media_id: format!("device-{number}"),
            timestamp_ms: now_ms(),
            latitude: places(self.latitude, 1e5),
            longitude: places(self.longitude, 1e5),
            heading: Some(self.heading.floor()),
            speed: Some(places(self.speed, 10.0)),
            properties: String::new(),
        }
    }
}
