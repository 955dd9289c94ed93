//! Devices that move, the part of them that a box shows, and clients that follow the stream of a box.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::f64::consts::PI;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tutti_load::now_ms;
use tutti_load::publisher::Publisher;
use tutti_load::sse::{Event, Request, Source};
use tutti_load::watch::Viewer;

use crate::fixes::Map;
use crate::testbed::Testbed;

/// A box: west, south, east, north, in degrees.
pub type Bounds = [f64; 4];

/// A place: latitude and longitude, in degrees.
pub type Place = (f64, f64);

/// Devices that move, and the map that must result.
pub struct Fleet {
    /// The newest fix of each device that was not removed since.
    pub held: BTreeMap<String, At>,
    /// A random number generator, for tests that scatter devices.
    pub random: StdRng,
    publisher: Publisher,
    around: Bounds,
}

/// A fix.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// The timestamp, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The place.
    pub place: Place,
}

impl Fleet {
    /// Makes a fleet without devices. Those that walk stay in these bounds.
    ///
    /// # Panics
    /// If the Kafka driver refuses.
    pub fn new(testbed: &Testbed, around: Bounds) -> Self {
        let random = StdRng::seed_from_u64(7);
        Self { held: BTreeMap::new(), random, publisher: testbed.publisher(), around }
    }

    /// Sends a fix with the current time, or a time after that of the last fix.
    ///
    /// # Panics
    /// If the Kafka driver refuses the record.
    pub async fn put(&mut self, id: &str, place: Place) {
        let timestamp_ms = self.held.get(id).map_or(0, |at| at.timestamp_ms + 1).max(now_ms());
        let (latitude, longitude) = place;
        let fix = json!({
            "mediaId": id,
            "timestamp": timestamp_ms,
            "latitude": latitude,
            "longitude": longitude,
            "speed": 1.5,
        });
        let fix = fix.to_string();
        self.publisher.send(id, Some(fix.as_bytes())).await.expect("the driver takes it");
        self.held.insert(id.to_owned(), At { timestamp_ms, place });
    }

    /// Removes a device, if there is one, by a record without a value.
    ///
    /// # Panics
    /// If the Kafka driver refuses the record.
    pub async fn remove(&mut self, id: &str) {
        let Some(last) = self.held.remove(id) else { return };
        // If a fix and a removal have the same millisecond, the fix wins.
        while now_ms() <= last.timestamp_ms {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.publisher.send(id, None).await.expect("the driver takes it");
    }

    /// Runs this many rounds in which some of 400 devices take a random step, and a few are removed.
    ///
    /// # Panics
    /// If the Kafka driver refuses a record.
    pub async fn walk(&mut self, rounds: u32) {
        let [west, south, east, north] = self.around;
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..rounds {
            pace.tick().await;
            for _ in 0..60 {
                let id = format!("walker-{}", self.random.random_range(0..400));
                if self.random.random_bool(0.02) {
                    self.remove(&id).await;
                    continue;
                }
                let place = match self.held.get(&id).map(|at| at.place) {
                    Some((latitude, longitude)) => (
                        (latitude + self.random.random_range(-0.04..0.04_f64)).clamp(south, north),
                        (longitude + self.random.random_range(-0.04..0.04_f64)).clamp(west, east),
                    ),
                    None => (self.random.random_range(south..north), self.random.random_range(west..east)),
                };
                self.put(&id, place).await;
            }
        }
    }

    /// Waits until Kafka has everything.
    ///
    /// # Panics
    /// If Kafka does not acknowledge everything.
    pub async fn flush(&self) {
        self.publisher.flush(Duration::from_secs(30)).await.expect("Kafka takes it");
    }

    /// Returns the whole map.
    pub fn all(&self) -> Map {
        self.held.iter().map(|(id, at)| (id.clone(), at.timestamp_ms)).collect()
    }

    /// Returns the part of the map that a box shows.
    pub fn within(&self, bounds: Bounds) -> Map {
        let area = Area::of(bounds);
        let inside = self.held.iter().filter(|(_, at)| area.contains(at.place));
        inside.map(|(id, at)| (id.clone(), at.timestamp_ms)).collect()
    }

    /// Returns the number of devices in each cell of a box's area.
    pub fn cells(&self, bounds: Bounds) -> BTreeMap<String, u64> {
        let area = Area::of(bounds);
        let mut cells = BTreeMap::new();
        for at in self.held.values().filter(|at| area.contains(at.place)) {
            *cells.entry(cell(area.zoom + 3, at.place)).or_default() += 1;
        }
        cells
    }
}

/// The tiles that a box touches, computed from what the documentation promises and not by the code of the edge.
#[derive(Debug, PartialEq)]
pub struct Area {
    zoom: u32,
    /// Columns from west to east, perhaps across the antimeridian.
    columns: Vec<u32>,
    rows: RangeInclusive<u32>,
}

impl Area {
    /// Returns at most 16 tiles that cover a box, at the highest zoom that allows it.
    ///
    /// # Panics
    /// Never: at zoom 0 there is one tile.
    pub fn of(bounds: Bounds) -> Self {
        let mut areas = (0..=16).rev().map(|zoom| Self::at(zoom, bounds));
        areas.find(|area| area.tiles() <= 16).expect("at zoom 0 there is one tile")
    }

    fn at(zoom: u32, [west, south, east, north]: Bounds) -> Self {
        let ((left, top), (right, bottom)) = (tile(zoom, (north, west)), tile(zoom, (south, east)));
        let side = 1u32 << zoom;
        let columns = if west <= east {
            (left..=right).collect()
        } else {
            (left..side).chain(0..=right).take(side as usize).collect()
        };
        Self { zoom, columns, rows: top..=bottom }
    }

    fn tiles(&self) -> usize {
        self.columns.len() * self.rows.clone().count()
    }

    fn contains(&self, place: Place) -> bool {
        let (column, row) = tile(self.zoom, place);
        self.columns.contains(&column) && self.rows.contains(&row)
    }

    fn bounds(&self) -> Bounds {
        let side = f64::from(1u32 << self.zoom);
        let longitude = |column: u32| f64::from(column) / side * 360.0 - 180.0;
        let latitude = |row: u32| (PI * (1.0 - 2.0 * f64::from(row) / side)).sinh().atan().to_degrees();
        let (left, right) = (self.columns[0], self.columns[self.columns.len() - 1] + 1);
        [longitude(left), latitude(*self.rows.end() + 1), longitude(right), latitude(*self.rows.start())]
    }
}

/// Returns the name of the cell that a place is in.
pub fn cell(zoom: u32, place: Place) -> String {
    let (column, row) = tile(zoom, place);
    format!("{zoom}/{column}/{row}")
}

/// Returns the column and the row of the tile that a place is in. A negative share becomes 0 in the cast, as in the
/// tiles.
fn tile(zoom: u32, (latitude, longitude): Place) -> (u32, u32) {
    let side = 1u32 << zoom;
    let latitude = latitude.clamp(-85.0511287798066, 85.0511287798066).to_radians();
    let x = (longitude + 180.0) / 360.0;
    let y = 0.5 - (latitude.tan() + 1.0 / latitude.cos()).ln() / (2.0 * PI);
    let at = |share: f64| ((share * f64::from(side)) as u32).min(side - 1);
    (at(x), at(y))
}

/// What a client of a stream holds, and what it has heard since the stream was opened.
#[derive(Clone, Default)]
pub struct Screen {
    /// The state of a client that applies each event in order.
    pub in_order: Viewer,
    /// The number of devices in each cell that has any.
    pub cells: BTreeMap<String, u64>,
    /// The data of the event `view`.
    pub view: Value,
    /// Whether an id was heard that is not the one of a snapshot which has not ended.
    pub settled: bool,
    /// The devices that events named.
    pub named: BTreeSet<String>,
    /// Bytes of data.
    pub bytes: usize,
    /// The counts of cells that came since a test last cleared this.
    pub changed: BTreeMap<String, u64>,
    /// The state of a client that compares timestamps: the newest timestamp of each device, and whether it is of a
    /// fix.
    newest: HashMap<String, (i64, bool)>,
    last_id: String,
    events: Vec<String>,
}

impl Screen {
    /// Makes a screen that was shown something elsewhere, up to this id.
    pub fn after(id: &str) -> Self {
        Self { last_id: id.to_owned(), ..Self::default() }
    }

    /// Returns the map of a client that lets the newer timestamp win.
    pub fn by_timestamps(&self) -> Map {
        let alive = self.newest.iter().filter(|(_, (_, is_fix))| *is_fix);
        alive.map(|(id, (timestamp_ms, _))| (id.clone(), *timestamp_ms)).collect()
    }

    /// Checks that the client heard the area of its box before any device.
    ///
    /// # Panics
    /// If it heard another area, or heard it too late.
    pub fn looks_at(&self, bounds: Bounds) {
        let area = Area::of(bounds);
        let first = self.events.iter().find(|name| *name == "view" || name.starts_with("liveMap"));
        assert_eq!(first.map(String::as_str), Some("view"));
        assert_eq!(self.view["zoom"], area.zoom);
        assert_eq!(self.view["tiles"], area.tiles());
        let told: Vec<f64> =
            self.view["bbox"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        let near = told.iter().zip(area.bounds()).all(|(told, own)| (told - own).abs() < 1e-5);
        assert!(told.len() == 4 && near, "{} in place of {:?}", self.view, area.bounds());
    }

    fn hear(&mut self, event: &Event) {
        let data: Value = serde_json::from_str(&event.data).expect("data is JSON");
        let list = || data.as_array().expect("an array").iter();
        match event.event.as_str() {
            "view" => self.view = data.clone(),
            "liveMapCluster" => list().for_each(|told| self.hear_cell(told)),
            name => {
                if name.starts_with("liveMap") {
                    list().for_each(|told| self.hear_device(told, name == "liveMapLocation"));
                } else if name == "reset" {
                    self.newest.clear();
                    self.cells.clear();
                }
                self.in_order.hear(event).expect("an event of the map");
            }
        }
        self.bytes += event.data.len();
        self.events.push(event.event.clone());
        if !event.id.is_empty() && event.id != self.last_id {
            self.last_id.clone_from(&event.id);
            self.settled = event.id != "0";
        }
    }

    fn hear_device(&mut self, told: &Value, is_fix: bool) {
        let id = told["mediaId"].as_str().expect("a mediaId");
        let word = (told["timestamp"].as_i64().expect("a timestamp"), is_fix);
        let held = self.newest.entry(id.to_owned()).or_insert(word);
        *held = word.max(*held);
        self.named.insert(id.to_owned());
    }

    fn hear_cell(&mut self, told: &Value) {
        let number = |name: &str| told[name].as_f64().expect("a number");
        let name = told["cell"].as_str().expect("a cell").to_owned();
        let count = told["count"].as_u64().expect("a count");
        let zoom = name.split('/').next().and_then(|zoom| zoom.parse().ok()).expect("a zoom");
        assert_eq!(cell(zoom, (number("latitude"), number("longitude"))), name, "its centre is in it");
        self.changed.insert(name.clone(), count);
        self.cells.insert(name, count);
        self.cells.retain(|_, count| *count > 0);
    }
}

/// A stream that is being followed.
pub struct Watching {
    screen: Arc<Mutex<Screen>>,
    task: JoinHandle<()>,
}

impl Watching {
    /// Opens a stream as a new client.
    ///
    /// # Panics
    /// If the stream does not open.
    pub async fn start(url: &str) -> Self {
        Self::go_on(url, Screen::default()).await
    }

    /// Opens a stream that resumes from what a client had.
    ///
    /// # Panics
    /// If the stream does not open.
    pub async fn go_on(url: &str, before: Screen) -> Self {
        let last_event_id = (!before.last_id.is_empty()).then(|| before.last_id.clone());
        let request = Request { url: url.to_owned(), last_event_id, token: None };
        let mut source = Source::open(&request).await.expect("the stream opens");
        let Screen { in_order, newest, cells, last_id, .. } = before;
        let screen = Screen { in_order, newest, cells, last_id, ..Screen::default() };
        let screen = Arc::new(Mutex::new(screen));
        let ours = screen.clone();
        let task = tokio::spawn(async move {
            while let Ok(Some(event)) = source.next().await {
                ours.lock().expect("no test panics while it holds this").hear(&event);
            }
        });
        Self { screen, task }
    }

    /// Returns what the client holds now.
    ///
    /// # Panics
    /// If the task that follows the stream panicked.
    pub fn now(&self) -> MutexGuard<'_, Screen> {
        self.screen.lock().expect("what was heard could be read")
    }

    /// Cuts the connection, and returns what the client held then.
    pub fn cut(self) -> Screen {
        self.task.abort();
        self.now().clone()
    }

    /// Waits until the client has an id of this stream, and then cuts the connection. An id that stands alone is only
    /// heard with the next event, so devices walk meanwhile.
    ///
    /// # Panics
    /// If the client gets no id.
    pub async fn cut_at_an_id(self, fleet: &mut Fleet) -> Screen {
        for _ in 0..500 {
            if self.now().settled {
                return self.cut();
            }
            fleet.walk(10).await;
        }
        panic!("no id was heard");
    }
}
