//! Edges with many viewers that drain: one for good, and three in turn.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tutti_e2e::eventually;
use tutti_e2e::fixes::{Course, Input, map_of_viewer};
use tutti_e2e::testbed::{Edge, Testbed};
use tutti_e2e::wire::Wire;
use tutti_load::publisher::Publisher;
use tutti_load::watch::Viewer;

const CLIENTS: usize = 2000;
const DEVICES: u64 = 50;

/// All clients have one address. The steps of the map are as far apart as in production, because one machine does
/// everything.
const SETTINGS: [(&str, &str); 4] = [
    ("streams.max_per_address", "0"),
    ("http.max_connections_per_address", "0"),
    ("streams.drain_seconds", "3"),
    ("map.tick_ms", "250"),
];

/// A viewer that connects to the next edge when a stream has ended.
#[derive(Default)]
struct Client {
    wire: Wire,
    /// What its streams had shown when they ended: the number of the newest fix, in the order in which all were sent. Each
    /// stream ended as HTTP, its coding and the events of the map require.
    ended: Vec<usize>,
    failed: Option<String>,
}

struct Crowd {
    clients: Vec<Arc<Mutex<Client>>>,
    _tasks: JoinSet<()>,
}

impl Crowd {
    /// Starts this many clients, each with addresses of its own. The check runs each time that a client has an id.
    fn start(
        count: usize,
        addresses: impl Fn(usize) -> Vec<String>,
        course: &Course,
        check: impl Fn(&Viewer) -> anyhow::Result<()> + Clone + Send + Sync + 'static,
    ) -> Self {
        let (mut clients, mut tasks) = (Vec::new(), JoinSet::new());
        for n in 0..count {
            let client = Arc::new(Mutex::new(Client::default()));
            clients.push(client.clone());
            let (addresses, course, check) = (addresses(n), course.clone(), check.clone());
            // Some clients accept gzip, as browsers do.
            let accept_encoding = (n % 4 == 0).then_some("gzip");
            tasks.spawn(async move {
                if let Err(error) = watch(&client, &addresses, accept_encoding, &course, &check).await {
                    client.lock().unwrap().failed = Some(format!("{error:#}"));
                }
            });
        }
        Self { clients, _tasks: tasks }
    }

    /// Whether a condition holds for all clients.
    fn all(&self, holds: impl Fn(&Client) -> bool) -> bool {
        self.clients.iter().all(|client| {
            let client = client.lock().unwrap();
            assert_eq!(client.failed, None);
            holds(&client)
        })
    }

    async fn is_shown_the_map(&self) {
        eventually("all are shown the map, and have an id", || async {
            self.all(|Client { wire: Wire { viewer, .. }, .. }| {
                viewer.devices.len() == DEVICES as usize && !["", "0"].contains(&viewer.last_id.as_str())
            })
        })
        .await;
    }

    /// Stops the input, and waits until all clients hold it. None may have gone back in time or heard a reset on its
    /// way.
    async fn arrives(&self, publishing: JoinHandle<Input>, stop: &AtomicBool) {
        stop.store(true, Ordering::Relaxed);
        let input = publishing.await.unwrap();
        assert!(input.sent > 2 * DEVICES, "they moved all the while");
        eventually("all hold what was sent", || async {
            self.all(|client| map_of_viewer(&client.wire.viewer) == input.expected)
        })
        .await;
        assert!(self.all(|client| client.wire.viewer.resets.is_empty()), "no client was reset");
        assert!(self.all(|client| client.wire.viewer.steps_back == 0));
    }
}

/// Connects to the next address whenever a stream has ended or did not begin.
async fn watch(
    client: &Mutex<Client>,
    addresses: &[String],
    accept_encoding: Option<&str>,
    course: &Course,
    check: &(impl Fn(&Viewer) -> anyhow::Result<()> + Sync),
) -> anyhow::Result<()> {
    let mut retry = Duration::ZERO;
    for address in addresses.iter().cycle() {
        if read(client, address, accept_encoding, check).await? {
            let mut client = client.lock().unwrap();
            let wire = std::mem::take(&mut client.wire);
            retry = wire.retry;
            let viewer = wire.finish()?;
            client.ended.push(course.newest(&viewer)?);
            client.wire = Wire::after(viewer);
        }
        sleep(retry).await; // as it was told
    }
    anyhow::bail!("there is no address")
}

/// Reads a stream to its end. Returns `false` if nothing came, as from an edge that is down.
async fn read(
    client: &Mutex<Client>,
    address: &str,
    accept_encoding: Option<&str>,
    check: &(impl Fn(&Viewer) -> anyhow::Result<()> + Sync),
) -> anyhow::Result<bool> {
    let Ok(mut socket) = TcpStream::connect(address).await else { return Ok(false) };
    let request = client.lock().unwrap().wire.request("/v1/map/stream", "1.1", accept_encoding);
    if socket.write_all(request.as_bytes()).await.is_err() {
        return Ok(false);
    }
    let (mut bytes, mut began) = (vec![0; 4096], false);
    loop {
        match socket.read(&mut bytes).await {
            Ok(0) => return Ok(began),
            Ok(length) => client.lock().unwrap().wire.take_each(&bytes[..length], check)?,
            Err(_) if !began => return Ok(false),
            Err(error) => return Err(error).context("the stream broke off"),
        }
        began = true;
    }
}

/// Moves the devices until `stop` is set. Returns everything that was sent.
fn publish(
    mut input: Input,
    publisher: Publisher,
    stop: Arc<AtomicBool>,
    json: impl Fn(&str, i64) -> String + Send + Sync + 'static,
) -> JoinHandle<Input> {
    tokio::spawn(async move {
        let mut pace = interval(Duration::from_millis(20));
        // No device may move twice in a millisecond, also if this task runs late.
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.load(Ordering::Relaxed) {
            pace.tick().await;
            input.send_each(&publisher, 1, &json).await;
        }
        publisher.flush(Duration::from_secs(30)).await.unwrap();
        input
    })
}

fn addresses_of(edges: &[Edge]) -> Vec<String> {
    edges.iter().map(|edge| edge.url.trim_start_matches("http://").to_owned()).collect()
}

async fn all_know(edges: &[Edge], input: &Input) {
    for edge in edges {
        eventually("it knows the map", || async { edge.map().await == input.expected }).await;
    }
}

/// Waits until an edge that was told to stop has ended, after all its streams.
async fn ends_well(edge: &Edge) {
    eventually("the process ends", || async { !edge.service.is_running() }).await;
    // An edge that exceeds its grace period exits with another code.
    assert_eq!(edge.service.exit_code(), Some(0), "{}", edge.service.log());
    assert!(!edge.service.log().contains("cutting them off"), "{}", edge.service.log());
}

/// Returns the largest share of the numbers that lies in one of ten equal parts between the first and the last.
fn thickest_tenth(numbers: &[usize]) -> f64 {
    let (first, last) = (*numbers.iter().min().unwrap(), *numbers.iter().max().unwrap());
    let mut counts = [0u32; 10];
    for number in numbers {
        counts[((number - first) * 10 / (last - first)).min(9)] += 1;
    }
    f64::from(*counts.iter().max().unwrap()) / numbers.len() as f64
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_viewers_of_an_edge_that_stops_go_on_at_another_and_miss_nothing() {
    tutti_service::raise_file_limit();
    let testbed = Testbed::new(2).await.with("locations.stale_after_seconds", "600");
    let (_ingest, edges) = testbed.up([&SETTINGS, &SETTINGS]).await;
    let (publisher, mut input, course) = (testbed.publisher(), Input::new(DEVICES), Course::of(DEVICES));
    input.send_each(&publisher, DEVICES, |id, timestamp_ms| course.fix(id, timestamp_ms)).await;
    all_know(&edges, &input).await;
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), course.clone());
    let publishing =
        publish(input, publisher, stop.clone(), move |id, timestamp_ms| sent.fix(id, timestamp_ms));
    let crowd = Crowd::start(CLIENTS, |_| addresses_of(&edges), &course, |_| Ok(()));
    crowd.is_shown_the_map().await;

    edges[0].service.signal(Signal::SIGTERM);
    eventually("all have gone on", || async {
        crowd.all(|client| client.ended.len() == 1 && !client.wire.head.is_empty())
    })
    .await;
    ends_well(&edges[0]).await;
    crowd.arrives(publishing, &stop).await;
    let ends: Vec<usize> =
        crowd.clients.iter().flat_map(|client| client.lock().unwrap().ended.clone()).collect();
    assert_eq!(ends.len(), CLIENTS);
    let between = ends.iter().max().unwrap() - ends.iter().min().unwrap();
    assert!(between as u64 > DEVICES, "the last was shown only {between} fixes more than the first");
    let thickest = thickest_tenth(&ends);
    assert!(thickest <= 0.8, "a share of {thickest} ended at the same place");
}

/// Reads a stream of the map over a slow link.
async fn read_slowly(address: &str, wire: Arc<Mutex<Wire>>) -> anyhow::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(8192)?;
    let mut socket = socket.connect(address.parse()?).await?;
    let request = wire.lock().unwrap().request("/v1/map/stream", "1.1", None);
    socket.write_all(request.as_bytes()).await?;
    let mut bytes = vec![0; 4096];
    loop {
        match socket.read(&mut bytes).await? {
            0 => return Ok(()),
            length => wire.lock().unwrap().take(&bytes[..length])?,
        }
        sleep(Duration::from_millis(20)).await; // this is what makes it slow
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_slow_to_take_the_map_is_sent_away_between_two_events() {
    const MANY: u64 = 20_000;
    let testbed = Testbed::new(1).await.with("locations.stale_after_seconds", "600");
    let (_ingest, edges) = testbed.up([&SETTINGS]).await;
    let (publisher, mut input) = (testbed.publisher(), Input::new(MANY));
    input.send(&publisher, MANY).await;
    all_know(&edges, &input).await;
    let address = addresses_of(&edges).remove(0);
    let wires: Vec<Arc<Mutex<Wire>>> = (0..10).map(|_| Arc::default()).collect();
    let mut reading: JoinSet<_> = wires
        .iter()
        .map(|wire| {
            let (address, wire) = (address.clone(), wire.clone());
            async move { read_slowly(&address, wire).await }
        })
        .collect();
    eventually("all are being shown the map", || async {
        wires.iter().all(|wire| wire.lock().unwrap().viewer.devices.len() > 1000)
    })
    .await;
    edges[0].service.signal(Signal::SIGTERM);
    while let Some(read) = reading.join_next().await {
        read.unwrap().unwrap();
    }
    ends_well(&edges[0]).await;
    for wire in wires {
        let viewer = std::mem::take(&mut *wire.lock().unwrap()).finish().unwrap();
        assert!(viewer.devices.len() < MANY as usize, "it was shown all of it");
        assert_eq!(viewer.last_id, "0", "it was cut off half-way, and comes back as such");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_three_edges_under_load_shows_no_viewer_what_the_map_never_was() {
    tutti_service::raise_file_limit();
    let testbed = Testbed::new(1).await.with("locations.stale_after_seconds", "600");
    let (_ingest, mut edges) = testbed.up([&SETTINGS, &SETTINGS, &SETTINGS]).await;
    let (publisher, mut input, course) = (testbed.publisher(), Input::new(DEVICES), Course::of(DEVICES));
    input.send_each(&publisher, DEVICES, |id, timestamp_ms| course.fix(id, timestamp_ms)).await;
    all_know(&edges, &input).await;
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), course.clone());
    let publishing =
        publish(input, publisher, stop.clone(), move |id, timestamp_ms| sent.fix(id, timestamp_ms));
    let addresses = addresses_of(&edges);
    let rotated = |n: usize| {
        let mut addresses = addresses.clone();
        addresses.rotate_left(n % 3);
        addresses
    };
    let checked = course.clone();
    let crowd = Crowd::start(300, rotated, &course, move |viewer| checked.check(viewer));
    crowd.is_shown_the_map().await;

    // The last edge goes first. Then its clients find an edge that was not restarted, and the clients of the others
    // find one that was.
    for edge in edges.iter_mut().rev() {
        edge.service.signal(Signal::SIGTERM);
        ends_well(edge).await;
        edge.service.run();
        edge.service.wait_ready().await;
    }
    crowd.arrives(publishing, &stop).await;
    assert!(crowd.all(|client| !client.ended.is_empty()), "all have gone on");
    for edge in &edges[1..] {
        assert!(edge.service.metric("tutti_edge_streams").await > 0.0, "some at an edge that is new");
    }
}
