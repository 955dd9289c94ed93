//! Streams as clients receive them that are not part of Tutti: the compressed map, by curl and by any program that
//! speaks HTTP; map and inbox, by a crate that reconnects by itself. The tests of the pages use Chromium. All other
//! tests read uncompressed streams, with reqwest.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventsource_client::{Client as _, ClientBuilder, Error, ReconnectOptions, SSE};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use rand::Rng as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep};
use tutti_e2e::fixes::{Input, Map, map_of_viewer, padded_fix};
use tutti_e2e::inboxes::{Inboxes, Seen, token};
use tutti_e2e::kafka;
use tutti_e2e::testbed::{Edge, Testbed};
use tutti_e2e::transport::ReqwestTransport;
use tutti_e2e::viewer::Following;
use tutti_e2e::viewport::{Bounds, Fleet};
use tutti_e2e::wire::{Wire, heard};
use tutti_e2e::{client, eventually};
use tutti_load::sse::{CONNECTION_EVENTS, Event};
use tutti_load::watch::Viewer;

/// A time so long that no fix becomes stale within a test.
const LONG: (&str, &str) = ("locations.stale_after_seconds", "600");

const CITY: Bounds = [-122.5, 37.7, -122.35, 37.83];
/// The bounds of devices that walk. They extend beyond those of the city.
const AROUND: Bounds = [-122.62, 37.58, -122.25, 37.95];

const STREAM: &str = "/v1/map/stream";

/// The arguments of curl, and the content coding that it must get. `None` leaves the coding to the edge.
const CURLS: [(&[&str], Option<&str>); 4] = [
    (&[], Some("")),
    (&["--compressed"], None),
    (&["--compressed", "-H", "accept-encoding: gzip"], Some("gzip")),
    (&["--compressed", "-H", "accept-encoding: zstd", "-H", "sec-fetch-mode: cors"], Some("zstd")),
];

/// A curl that follows a stream and prints it.
struct Curl {
    text: Arc<Mutex<Vec<u8>>>,
    /// The exit code, and the content coding of the stream.
    ended: JoinHandle<(Option<i32>, String)>,
    coding: Option<&'static str>,
}

impl Curl {
    fn start(url: &str, (arguments, coding): (&[&str], Option<&'static str>)) -> Self {
        let mut process = Command::new("curl")
            .args(["-sN", "-w", "%{stderr}%header{content-encoding}"])
            .args(arguments)
            .arg(url)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("apt-get install curl");
        let mut printed = process.stdout.take().unwrap();
        let text = Arc::new(Mutex::new(Vec::new()));
        let ours = text.clone();
        let ended = tokio::spawn(async move {
            let mut bytes = vec![0; 16 * 1024];
            loop {
                let length = printed.read(&mut bytes).await.unwrap();
                if length == 0 {
                    break;
                }
                ours.lock().unwrap().extend_from_slice(&bytes[..length]);
            }
            let output = process.wait_with_output().await.unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        });
        Self { text, ended, coding }
    }

    /// Starts a curl of each kind for the world and for the city. Each comes with its bounds.
    fn start_all(edge: &Edge, query: &str) -> Vec<(Self, Option<Bounds>)> {
        let [west, south, east, north] = CITY;
        let world = format!("{}?{query}", edge.stream());
        let city = format!("{world}&bbox={west},{south},{east},{north}");
        let of = |url: &str, bounds: Option<Bounds>| CURLS.map(|curl| (Self::start(url, curl), bounds));
        of(&world, None).into_iter().chain(of(&city, Some(CITY))).collect()
    }

    /// Returns the map that a reader of the output holds.
    fn map(&self) -> Map {
        map_of_viewer(&heard(&self.text.lock().unwrap()).unwrap())
    }

    /// Waits for the end, which must be as HTTP and the content coding require.
    async fn has_all_of(self, expected: &Map) {
        let (code, coding) = self.ended.await.unwrap();
        assert_eq!(code, Some(0), "curl, {coding:?}");
        if let Some(wanted) = self.coding {
            assert_eq!(coding, wanted);
        }
        let text = self.text.lock().unwrap();
        assert!(text.ends_with(b"\n\n"), "no event is cut");
        let viewer = heard(&text).unwrap();
        assert_eq!(map_of_viewer(&viewer), *expected, "{coding:?}");
        assert_eq!((viewer.resets.len(), viewer.steps_back), (0, 0), "{coding:?}");
    }
}

fn expected(fleet: &Fleet, bounds: Option<Bounds>) -> Map {
    bounds.map_or_else(|| fleet.all(), |bounds| fleet.within(bounds))
}

#[tokio::test]
async fn curl_prints_the_map_that_is_there_and_ends_well_however_it_is_compressed() {
    let testbed = Testbed::new(2).await.with(LONG.0, LONG.1);
    let (_ingest, [edge]) = testbed.up([&[]]).await;
    let mut fleet = Fleet::new(&testbed, AROUND);
    fleet.walk(20).await;
    fleet.flush().await;
    let plain = Following::start(&edge.stream()).await;
    eventually("all is there", || async { map_of_viewer(&plain.viewer()) == fleet.all() }).await;
    for (curl, bounds) in Curl::start_all(&edge, "maxSeconds=4") {
        curl.has_all_of(&expected(&fleet, bounds)).await;
    }
}

#[tokio::test]
async fn curl_prints_a_map_that_moves_and_ends_well_with_its_edge() {
    let testbed = Testbed::new(2).await.with(LONG.0, LONG.1);
    let (_ingest, [edge]) = testbed.up([&[("streams.drain_seconds", "1")]]).await;
    let mut fleet = Fleet::new(&testbed, AROUND);
    fleet.walk(10).await;
    let curls = Curl::start_all(&edge, "maxSeconds=600");
    eventually("all are open", || async {
        edge.service.metric("tutti_edge_streams").await == curls.len() as f64
    })
    .await;
    fleet.walk(75).await;
    fleet.flush().await;
    for (curl, bounds) in &curls {
        let expected = expected(&fleet, *bounds);
        eventually("it prints what was sent", || async { curl.map() == expected }).await;
    }
    edge.service.signal(Signal::SIGTERM);
    for (curl, bounds) in curls {
        curl.has_all_of(&expected(&fleet, bounds)).await;
    }
}

/// Requests a stream over a plain socket, and reads it to its end.
async fn ask(edge: &Edge, path: &str, version: &str, accept_encoding: Option<&str>) -> Wire {
    let mut socket = TcpStream::connect(edge.url.trim_start_matches("http://")).await.unwrap();
    let mut wire = Wire::default();
    socket.write_all(wire.request(path, version, accept_encoding).as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).await.unwrap();
    wire.take(&bytes).unwrap_or_else(|error| panic!("{accept_encoding:?}: {error:#}"));
    wire
}

#[tokio::test]
async fn who_asks_for_a_coding_gets_it_in_fewer_bytes_and_who_does_not_gets_none() {
    let testbed = Testbed::new(1).await.with(LONG.0, LONG.1);
    let (_ingest, [edge, plain_edge]) = testbed.up([&[], &[("streams.compress", "false")]]).await;
    let mut input = Input::new(2000);
    let publisher = testbed.publisher();
    input.send(&publisher, 2000).await;
    publisher.flush(Duration::from_secs(30)).await.unwrap();
    eventually("all are there", || async {
        edge.map().await == input.expected && plain_edge.map().await == input.expected
    })
    .await;
    let asked = [
        (None, None),
        (Some("gzip"), Some("gzip")),
        (Some("zstd"), Some("zstd")),
        (Some("deflate, gzip;q=0.5"), Some("gzip")),
        (Some("gzip, zstd;q=0.2"), Some("gzip")),
        (Some("gzip;q=0"), None),
        (Some("identity"), None),
        (Some("br"), None),
        (Some("no such thing;q=gzip,,;"), None),
    ];
    let path = format!("{STREAM}?maxSeconds=4");
    let asking =
        ["1.0", "1.1"].into_iter().flat_map(|version| asked.map(|(ours, coding)| (version, ours, coding)));
    let answers = join_all(asking.map(async |(version, ours, coding)| {
        let wire = ask(&edge, &path, version, ours).await;
        let bytes = wire.body_bytes;
        assert_eq!(wire.header("content-encoding"), coding, "{ours:?}");
        let vary = wire.header("vary").unwrap_or_default();
        assert!(vary.split(", ").any(|name| name == "accept-encoding"), "{ours:?}: {vary}");
        assert_eq!(wire.ended, version == "1.1", "chunks are of HTTP/1.1");
        let viewer = wire.finish().unwrap_or_else(|error| panic!("{version}, {ours:?}: {error:#}"));
        assert_eq!(map_of_viewer(&viewer), input.expected, "{ours:?}");
        (coding, bytes)
    }));
    let (answers, plain) = tokio::join!(answers, ask(&plain_edge, &path, "1.1", Some("gzip, zstd")));
    assert_eq!(plain.header("content-encoding"), None, "this edge is set so");
    // Python's httpx, urllib3 and aiohttp accept Zstandard, but cannot go on after the end of a frame.
    let offered = client().get(format!("{}{path}", edge.url)).header("accept-encoding", "zstd, gzip");
    assert_eq!(offered.send().await.unwrap().headers()["content-encoding"], "gzip");
    for (coding, bytes) in answers {
        if coding.is_some() {
            assert!(bytes * 2 <= plain.body_bytes, "{coding:?}: {bytes} of {}", plain.body_bytes);
        }
    }
}

/// Follows a compressed stream with a small socket buffer: 10 KB a second while `slow` is set, and then everything.
async fn follow(edge: &Edge, coding: &str, slow: Arc<AtomicBool>) -> Arc<Mutex<Wire>> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let address = edge.url.trim_start_matches("http://").parse().unwrap();
    let mut socket = socket.connect(address).await.unwrap();
    let wire = Wire::default();
    socket.write_all(wire.request(STREAM, "1.1", Some(coding)).as_bytes()).await.unwrap();
    let wire = Arc::new(Mutex::new(wire));
    let ours = wire.clone();
    tokio::spawn(async move {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let is_slow = slow.load(Ordering::Relaxed);
            let most = if is_slow { 1024 } else { bytes.len() };
            let length = socket.read(&mut bytes[..most]).await.unwrap();
            assert!(length > 0, "the edge ended the stream");
            ours.lock().unwrap().take(&bytes[..length]).unwrap();
            if is_slow {
                sleep(Duration::from_millis(100)).await; // this is what makes it slow
            }
        }
    });
    wire
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_compressed_stream_that_fall_behind_arrive_at_the_newest_state() {
    let testbed = Testbed::new(3).await.with(LONG.0, LONG.1);
    let (_ingest, [edge]) = testbed.up([&[("streams.stall_seconds", "600")]]).await;
    let publisher = testbed.publisher();
    let mut input = Input::new(4000);
    // Compression does not make this text much smaller.
    let noise: String = (0..1 << 20).map(|_| char::from(rand::rng().random_range(b'a'..=b'z'))).collect();
    let send = async |input: &mut Input, count: u64| {
        let fix = |id: &str, timestamp_ms| {
            let at = rand::rng().random_range(0..noise.len() - 900);
            padded_fix(id, timestamp_ms, &noise[at..at + 900])
        };
        input.send_each(&publisher, count, fix).await;
    };
    send(&mut input, 4000).await;
    eventually("the snapshot is there", || async { edge.map().await.len() == 4000 }).await;
    let slow = Arc::new(AtomicBool::new(true));
    let mut clients = Vec::new();
    for coding in ["gzip", "zstd", "gzip"] {
        clients.push(follow(&edge, coding, slow.clone()).await);
    }
    for _ in 0..20 {
        send(&mut input, 1000).await;
    }
    publisher.flush(Duration::from_secs(60)).await.unwrap();
    eventually("the edge has all", || async { edge.map().await == input.expected }).await;
    eventually("they are behind", || async { edge.service.metric("tutti_edge_streams_behind").await >= 3.0 })
        .await;
    slow.store(false, Ordering::Relaxed);
    for client in clients {
        eventually("it arrives", || async {
            map_of_viewer(&client.lock().unwrap().viewer) == input.expected
        })
        .await;
        let wire = client.lock().unwrap();
        assert_eq!(wire.viewer.steps_back, 0);
        assert_eq!(wire.viewer.resets, [""; 0]);
        assert!(wire.header("content-encoding").is_some());
    }
}

/// What a client that reconnects by itself was told.
#[derive(Default)]
struct Reconnecting<Held> {
    held: Held,
    streams: u32,
    failed: Option<String>,
}

/// Follows a stream of user 7 with the crate of LaunchDarkly, which reconnects with its last id when a stream has
/// ended.
fn keep_following<Held>(url: &str, hear: fn(&mut Held, &Event)) -> Arc<Mutex<Reconnecting<Held>>>
where
    Held: Default + Send + 'static,
{
    let reconnect = ReconnectOptions::reconnect(true).delay(Duration::from_millis(100)).backoff_factor(1);
    let client = ClientBuilder::for_url(url)
        .and_then(|builder| builder.header("authorization", &format!("Bearer {}", token("7"))))
        .unwrap()
        .reconnect(reconnect.build())
        .build_with_transport(ReqwestTransport);
    let mut stream = client.stream();
    let told = Arc::new(Mutex::new(Reconnecting::default()));
    let ours = told.clone();
    tokio::spawn(async move {
        while let Some(next) = stream.next().await {
            let mut told = ours.lock().unwrap();
            match next {
                Ok(SSE::Connected(_)) => told.streams += 1,
                Ok(SSE::Event(event)) if CONNECTION_EVENTS.contains(&event.event_type.as_str()) => {}
                Ok(SSE::Event(event)) => {
                    let retry = event.retry.map(Duration::from_millis);
                    let (id, data) = (event.id.unwrap_or_default(), event.data);
                    hear(&mut told.held, &Event { event: event.event_type, data, id, retry });
                }
                // The stream ended after the time that was asked for.
                Ok(SSE::Comment(_)) | Err(Error::Eof) => {}
                Err(error) => told.failed = Some(error.to_string()),
            }
        }
    });
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crate_that_comes_back_by_itself_hears_of_map_and_inbox_once_and_begins_neither_anew() {
    let testbed = Testbed::on(kafka::shared(), 2).await.with(LONG.0, LONG.1);
    let inboxes = Inboxes::with(kafka::shared(), testbed, 1).await;
    let ingests = [inboxes.testbed.ingest(&[]), inboxes.ingest()];
    let edge = inboxes.edge(&[]).await;
    for ingest in &ingests {
        ingest.wait_ready().await;
    }
    let urls = [edge.url.clone()];
    // There are so many devices that a client which came back without an id would hear much again, and no more than
    // fit in one event.
    let (publisher, mut input) = (inboxes.testbed.publisher(), Input::new(100));
    input.send(&publisher, 100).await;
    eventually("the edge knows the map", || async { edge.map().await == input.expected }).await;
    let hear = |viewer: &mut Viewer, event: &Event| viewer.hear(event).unwrap();
    let map = keep_following::<Viewer>(&format!("{}?maxSeconds=1", edge.stream()), hear);
    let inbox = keep_following(&format!("{}/v1/inbox/stream?maxSeconds=1", edge.url), Seen::hear);
    eventually("the device is live", || async { !inbox.lock().unwrap().held.statuses.is_empty() }).await;

    let done = AtomicBool::new(false);
    let sending = async {
        let (mut sent, mut pace) = (Vec::new(), interval(Duration::from_millis(100)));
        while !done.load(Ordering::Relaxed) {
            pace.tick().await;
            input.send(&publisher, 5).await;
            let body = json!({ "to": { "users": ["7"] }, "title": "hello" });
            sent.push(inboxes.send_until_accepted(&urls, &format!("key-{}", sent.len()), &body).await);
        }
        sent
    };
    let returning = async {
        eventually("both have come back three times", || async {
            map.lock().unwrap().streams > 3 && inbox.lock().unwrap().streams > 3
        })
        .await;
        done.store(true, Ordering::Relaxed);
    };
    let (sent, ()) = tokio::join!(sending, returning);
    publisher.flush(Duration::from_secs(30)).await.unwrap();
    eventually("both have all", || async {
        map_of_viewer(&map.lock().unwrap().held) == input.expected
            && inbox.lock().unwrap().held.ids.len() >= sent.len()
    })
    .await;
    let (map, inbox) = (map.lock().unwrap(), inbox.lock().unwrap());
    assert_eq!((&map.failed, &inbox.failed), (&None, &None));
    let Viewer { resets, removals, steps_back, repeats, .. } = &map.held;
    assert_eq!((resets.len(), *removals, *steps_back, *repeats), (0, 0, 0, 0), "{resets:?}");
    let Seen { ids, twice, resets, .. } = &inbox.held;
    assert_eq!((ids, twice.len(), resets.len()), (&sent, 0, 0), "{resets:?}");
}
