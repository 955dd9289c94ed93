//! Clients that are slow, stop or leave, and edges that end their streams.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tutti_e2e::eventually;
use tutti_e2e::fixes::{Input, map_of_viewer, padded_fix};
use tutti_e2e::rooms::SECRET;
use tutti_e2e::testbed::{Edge, Testbed};
use tutti_e2e::viewer::Following;
use tutti_e2e::wire::is_busy;
use tutti_load::now_ms;
use tutti_load::sse::{CONNECTION_EVENTS, Event};
use tutti_load::watch::Viewer;

/// An HTTP/1.0 client (without chunks) with a small socket buffer, which reads only when it is told to.
struct Slow {
    socket: TcpStream,
    text: String,
    viewer: Viewer,
}

impl Slow {
    fn open(edge: &Edge) -> Self {
        let address: SocketAddr = edge.url.trim_start_matches("http://").parse().unwrap();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        socket.connect(&address.into()).unwrap();
        let mut socket = TcpStream::from(socket);
        write!(socket, "GET /v1/map/stream HTTP/1.0\r\nhost: edge\r\n\r\n").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        Self { socket, text: String::new(), viewer: Viewer::default() }
    }

    /// Reads once, at most `bytes` bytes, and takes in all events that are complete.
    fn read(&mut self, bytes: usize) {
        let mut buffer = vec![0; bytes];
        match self.socket.read(&mut buffer) {
            Ok(0) => panic!("the edge ended the stream; heard {} fixes", self.viewer.fixes),
            Ok(n) => self.text.push_str(std::str::from_utf8(&buffer[..n]).expect("the input was ASCII")),
            Err(_) => return,
        }
        while let Some(end) = self.text.find("\n\n") {
            let block: String = self.text.drain(..end + 2).collect();
            let mut event =
                Event { event: String::new(), data: String::new(), id: String::new(), retry: None };
            for line in block.lines() {
                match line.split_once(": ") {
                    Some(("event", value)) => event.event = value.to_owned(),
                    Some(("data", value)) => event.data = value.to_owned(),
                    Some(("id", value)) => event.id = value.to_owned(),
                    _ => {} // the response's head, and retry
                }
            }
            if !event.event.is_empty() && !CONNECTION_EVENTS.contains(&event.event.as_str()) {
                self.viewer.hear(&event).unwrap();
            }
        }
    }

    /// Reads 10 KB a second while `slow` is set, and then everything, until it holds `expected`.
    fn follow(
        mut self,
        slow: Arc<AtomicBool>,
        expected: Arc<std::sync::Mutex<tutti_e2e::fixes::Map>>,
    ) -> JoinHandle<Viewer> {
        std::thread::spawn(move || {
            while slow.load(Ordering::Relaxed) {
                self.read(1024);
                std::thread::sleep(Duration::from_millis(100)); // this is what makes it slow
            }
            let until = Instant::now() + Duration::from_secs(90);
            while map_of_viewer(&self.viewer) != *expected.lock().unwrap() {
                assert!(Instant::now() < until, "it did not arrive: {} devices", self.viewer.devices.len());
                for _ in 0..50 {
                    self.read(64 * 1024);
                }
            }
            self.viewer
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_hurt_nobody_and_arrive_at_the_newest_state() {
    let testbed = Testbed::new(3).await.with("locations.stale_after_seconds", "600");
    let (_ingest, [edge]) = testbed.up([&[("streams.stall_seconds", "600")]]).await;
    let publisher = testbed.publisher();
    let mut input = Input::new(4000);
    let padding = "p".repeat(900);
    let send = async |input: &mut Input, count: u64| {
        input.send_each(&publisher, count, |id, timestamp_ms| padded_fix(id, timestamp_ms, &padding)).await;
    };
    // This snapshot has 4 MB, more than the buffer of any socket.
    send(&mut input, 4000).await;
    eventually("the snapshot is there", || async { edge.map().await.len() == 4000 }).await;

    let slow = Arc::new(AtomicBool::new(true));
    let expected = Arc::new(std::sync::Mutex::new(input.expected.clone()));
    let stopped: Vec<Slow> = (0..8).map(|_| Slow::open(&edge)).collect();
    let trickling = Slow::open(&edge).follow(slow.clone(), expected.clone());
    let good = Following::start(&edge.stream()).await;
    eventually("the good one has the snapshot", || async { good.viewer().devices.len() == 4000 }).await;
    let before = edge.service.resident_bytes();
    let mut most = before;
    for _ in 0..50 {
        send(&mut input, 1000).await;
        most = most.max(edge.service.resident_bytes());
    }
    publisher.flush(Duration::from_secs(60)).await.unwrap();
    eventually("the good one arrives while the others do not read", || async {
        map_of_viewer(&good.viewer()) == input.expected
    })
    .await;
    most = most.max(edge.service.resident_bytes());
    // Eight queues of unread events would take 400 MB.
    assert!(most < before + (100 << 20), "from {before} to {most} bytes");
    assert!(
        edge.service.metric("tutti_edge_fell_behind_total").await > 0.0
            || edge.service.metric("tutti_edge_streams_behind").await >= 8.0
    );

    *expected.lock().unwrap() = input.expected.clone();
    slow.store(false, Ordering::Relaxed);
    let readers: Vec<_> = stopped.into_iter().map(|s| s.follow(slow.clone(), expected.clone())).collect();
    for reader in readers.into_iter().chain([trickling]) {
        let viewer = tokio::task::spawn_blocking(|| reader.join()).await.unwrap().expect("it arrives");
        assert_eq!(viewer.steps_back, 0);
        assert_eq!(viewer.resets, [""; 0]);
    }
    assert_eq!(good.viewer().steps_back, 0);
}

#[tokio::test]
async fn a_client_that_reads_nothing_for_too_long_is_cut_off() {
    let testbed = Testbed::new(1).await.with("locations.stale_after_seconds", "600");
    let (_ingest, [edge]) = testbed.up([&[("streams.stall_seconds", "2")]]).await;
    let publisher = testbed.publisher();
    for n in 0..30_000 {
        let id = format!("device-{n}");
        publisher.send(&id, Some(tutti_e2e::fixes::fix(&id, now_ms()).as_bytes())).await.unwrap();
    }
    eventually("the snapshot is there", || async { edge.map().await.len() == 30_000 }).await;
    let stopped = Slow::open(&edge);
    eventually("it is cut off", || async {
        edge.service.metric("tutti_edge_streams_ended_total").await == 1.0
            && edge.service.metric("tutti_edge_streams").await == 0.0
    })
    .await;
    drop(stopped);
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_and_a_stream_ends_by_plan() {
    let testbed = Testbed::new(1).await;
    let (_ingest, [edge]) = testbed.up([&[]]).await;
    let left = Following::start(&edge.stream()).await;
    let short = Following::start(&format!("{}?maxSeconds=10", edge.stream())).await;
    eventually("both are open", || async { edge.service.metric("tutti_edge_streams").await == 2.0 }).await;
    left.cut();
    eventually("one left, and one ended", || async {
        edge.service.metric("tutti_edge_streams").await == 0.0
    })
    .await;
    eventually("its end was clean", || async { !short.is_open() }).await;
    assert_eq!(short.result().await, Ok(()), "the last chunk was written");
}

#[tokio::test]
async fn an_edge_above_its_limit_and_an_edge_that_stops_send_clients_away_gently() {
    let testbed = Testbed::new(1).await;
    let (_ingest, [edge]) = testbed.up([&[("streams.max", "3"), ("streams.drain_seconds", "2")]]).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(Following::start(&edge.stream()).await);
    }
    eventually("three are open", || async { edge.service.metric("tutti_edge_streams").await == 3.0 }).await;
    let turned_away = reqwest::get(edge.stream()).await.unwrap();
    assert_eq!(turned_away.status(), 200, "any other status ends an EventSource for good");
    assert!(is_busy(&turned_away.text().await.unwrap(), "all"));

    edge.service.signal(Signal::SIGTERM);
    for stream in streams {
        eventually("its stream ends", || async { !stream.is_open() }).await;
        assert_eq!(stream.result().await, Ok(()), "with its last chunk");
    }
    eventually("the process ends", || async { !edge.service.is_running() }).await;
    assert!(edge.service.log().contains("stopped"));
}

#[tokio::test]
async fn a_rolling_restart_under_load_is_seen_by_no_viewer() {
    let testbed = Testbed::new(2).await.with("locations.stale_after_seconds", "600");
    let (_ingest, [first, second]) = testbed.up([&[("streams.drain_seconds", "3")], &[]]).await;
    let publisher = testbed.publisher();
    let mut input = Input::new(100);
    let mut viewers = Vec::new();
    for _ in 0..20 {
        viewers.push(Following::start(&first.stream()).await);
    }
    input.send_for(&publisher, Duration::from_secs(1), 500).await;
    eventually("all are shown the map", || async { viewers.iter().all(|v| v.viewer().devices.len() == 100) })
        .await;
    first.service.signal(Signal::SIGTERM);
    let heard: Vec<u64> = viewers.iter().map(|v| v.viewer().fixes).collect();
    let (sending, moving) = tokio::join!(
        async {
            input.send_for(&publisher, Duration::from_secs(5), 500).await;
            input
        },
        async {
            let mut moved = Vec::new();
            for (viewer, before) in viewers.into_iter().zip(heard) {
                eventually("its stream ends", || async { !viewer.is_open() }).await;
                let shown = viewer.viewer().clone();
                assert_eq!(viewer.result().await, Ok(()), "no event is cut in the middle");
                moved.push((Following::go_on(&second.stream(), shown.clone()).await, shown.fixes > before));
            }
            moved
        }
    );
    publisher.flush(Duration::from_secs(30)).await.unwrap();
    let went_on = moving.iter().filter(|(_, went_on)| *went_on).count();
    assert!(went_on > 10, "the map went on for those whose streams had not ended: {went_on} of 20");
    for (viewer, _) in &moving {
        eventually("it arrives", || async { map_of_viewer(&viewer.viewer()) == sending.expected }).await;
        assert_eq!(viewer.viewer().resets, [""; 0]);
        assert_eq!(viewer.viewer().steps_back, 0);
    }
}

#[tokio::test]
async fn an_id_that_no_edge_ever_sent_gets_a_reset_and_everything() {
    let testbed = Testbed::new(1).await;
    let (_ingest, [edge]) = testbed.up([&[]]).await;
    let publisher = testbed.publisher();
    let mut input = Input::new(5);
    input.send(&publisher, 5).await;
    eventually("the map is there", || async { edge.map().await.len() == 5 }).await;
    let known = edge.locations().await.unwrap()["id"].as_str().unwrap().to_owned();
    let mut cursor = tutti_feed::Cursor::parse(&known).unwrap();
    for place in cursor.0.iter_mut().flatten() {
        place.seq += 1_000_000;
    }
    let ahead = cursor.to_text();
    let huge = "A".repeat(3000);
    for id in ["nonsense!", "AA", "%00", huge.as_str(), ahead.as_str()] {
        let stream = Following::start(&format!("{}?since={id}", edge.stream())).await;
        eventually("it gets everything", || async { stream.viewer().devices.len() == 5 }).await;
        assert_eq!(stream.viewer().resets, ["unknown_id"], "{id}");
    }
}

/// Splits a stream into blocks of fields, like a program that knows nothing of Tutti.
fn blocks(text: &str) -> Vec<BTreeMap<String, String>> {
    let field = |line: &str| {
        let (name, value) = line.split_once(": ").expect("a field");
        (name.to_owned(), value.to_owned())
    };
    text.split_terminator("\n\n").map(|block| block.lines().map(field).collect()).collect()
}

/// By the HTML standard a client forgets its last id at the first event of a connection that has no id. Many client
/// libraries pass a block without data to their program as an empty message.
#[tokio::test]
async fn each_block_is_an_event_with_data_and_the_first_tells_the_clients_own_id() {
    let testbed = Testbed::new(1).await;
    let (_ingest, [edge]) = testbed.up([&[("streams.heartbeat_seconds", "1")]]).await;
    let told = async |path: &str, header: Option<&str>| {
        let mut request = tutti_e2e::client().get(format!("{}{path}", edge.url));
        if let Some(id) = header {
            request = request.header("last-event-id", id);
        }
        blocks(&request.send().await.unwrap().text().await.unwrap())
    };
    let asked = [
        ("/v1/map/stream?maxSeconds=4", None, None),
        ("/v1/map/stream?maxSeconds=4&bbox=1,1,2,2", None, None),
        ("/v1/map/stream?maxSeconds=1", Some("a.b"), Some("a.b")),
        ("/v1/map/stream?maxSeconds=1&since=c", None, Some("c")),
        ("/v1/map/stream?maxSeconds=1&since=c", Some("d"), Some("d")),
        ("/v1/stream?map&since=m.e&maxSeconds=4", None, Some("m.e")),
        ("/v1/map/stream?maxSeconds=1&since=c%0Adata:x", None, None),
        // Polyfills and the clients of Mercure write this into the URL when they come back.
        ("/v1/map/stream?maxSeconds=1&since=c&lastEventId=f", None, Some("f")),
        ("/v1/map/stream?maxSeconds=1&lastEventID=g&since=", None, Some("g")),
        ("/v1/map/stream?maxSeconds=1&Last-Event-ID=h", None, Some("h")),
        ("/v1/map/stream?maxSeconds=1&lastEventId=&since=c", None, Some("c")),
        ("/v1/map/stream?maxSeconds=1&lastEventId=f", Some("d"), Some("d")),
    ];
    let all = asked.map(async |(path, header, id)| (path, id, told(path, header).await));
    for (path, id, blocks) in futures_util::future::join_all(all).await {
        for block in &blocks {
            assert!(block.contains_key("event"), "{path}: {block:?}");
            let data: Value = serde_json::from_str(&block["data"]).unwrap();
            assert!(data.is_object() || data.is_array(), "{path}: {block:?}");
        }
        let (first, last) = (&blocks[0], &blocks[blocks.len() - 1]);
        assert_eq!((&*first["event"], &*first["retry"]), ("heartbeat", "1000"), "{path}");
        assert_eq!(first.get("id").map(String::as_str), id, "{path}");
        assert_eq!(last["event"], "reconnect", "{path}");
        let data: Value = serde_json::from_str(&last["data"]).unwrap();
        assert_eq!((&data["reason"], data["retryMs"].to_string()), (&json!("life"), last["retry"].clone()));
        if path.contains("maxSeconds=4") {
            let mut heartbeats = blocks[1..].iter().filter(|block| block["event"] == "heartbeat");
            let newest = heartbeats.next_back().expect("the stream was quiet for longer than a heartbeat");
            assert!(newest["id"].len() > 1, "{path}: {newest:?}");
            assert!(serde_json::from_str::<Value>(&newest["data"]).unwrap()["at"].as_u64() > Some(1 << 40));
        }
    }
    let twice = tutti_e2e::client().get(format!("{}?lastEventId=a&lastEventID=b", edge.stream()));
    assert_eq!(twice.send().await.unwrap().status(), 400);
}

/// The EventSource of a browser shows its program neither the status nor the body of an answer that is not a stream.
#[tokio::test]
async fn a_refusal_is_an_event_for_those_who_ask_for_that() {
    let testbed = Testbed::new(1).await;
    let edge = testbed.edge(&[("map.public", "false"), ("auth.hs256_secret", SECRET)]);
    edge.service.wait_ready().await;
    let cases = [
        ("/v1/map/stream", 401, "unauthorized"),
        ("/v1/stream?map", 401, "unauthorized"),
        ("/v1/stream", 400, "bad_request"),
        ("/v1/inbox/stream", 401, "unauthorized"),
        ("/v1/rooms/sale/stream", 404, "not_found"),
        ("/v1/topics/nothing/stream", 401, "unauthorized"),
    ];
    for (path, status, reason) in cases {
        let plain = tutti_e2e::client().get(format!("{}{path}", edge.url)).send().await.unwrap();
        assert_eq!(plain.status(), status, "{path}");
        let detail = plain.json::<Value>().await.unwrap()["detail"].clone();
        let mark = if path.contains('?') { '&' } else { '?' };
        let url = format!("{}{path}{mark}refusals=event", edge.url);
        let answer = tutti_e2e::client().get(url).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.headers()["content-type"], "text/event-stream; charset=utf-8");
        let blocks = blocks(&answer.text().await.unwrap());
        assert_eq!((blocks.len(), &*blocks[0]["event"]), (1, "end"), "{path}");
        let told: Value = serde_json::from_str(&blocks[0]["data"]).unwrap();
        assert_eq!(told, json!({ "reason": reason, "status": status, "detail": detail }), "{path}");
        assert!(blocks[0]["retry"].parse::<u64>().unwrap() >= 30_000, "who comes back does so late");
    }
}
