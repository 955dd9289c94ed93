//! `tutti up` as a developer starts it, and its page in a real browser.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::json;
use tutti::local::{Owned, wait_for_port};
use tutti::token::{DEVELOPMENT_SECRET, sign};
use tutti_e2e::fixes::{Input, Map, fix};
use tutti_e2e::rooms::{Rooms, key};
use tutti_e2e::service::program;
use tutti_e2e::testbed::Testbed;
use tutti_e2e::viewer::Following;
use tutti_e2e::{eventually, free_port};
use tutti_load::now_ms;
use tutti_load::publisher::Publisher;

use crate::browser::Browser;

/// The number of consecutive ports that `--port-base` takes.
const PORTS: u16 = 11;

/// Returns the first of several consecutive ports that are free now, for `--port-base`. They are neither those of
/// other tests, nor those that this function gave to another test that has not opened them yet.
pub(crate) fn port_base() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let given = NEXT.fetch_add(1, Ordering::Relaxed);
        // Two test runs at the same time begin at different ports.
        let base = 10_000 + ((std::process::id() % 100) as u16 * 90 + given * PORTS) % 9_900;
        if (0..PORTS).all(|n| std::net::TcpListener::bind(("127.0.0.1", base + n)).is_ok()) {
            return base;
        }
    }
}

#[tokio::test]
async fn tutti_up_without_a_redis_says_what_it_waits_for_and_not_that_it_is_ready() {
    let (base, folder) = (port_base(), tempfile::tempdir().unwrap());
    let log = folder.path().join("up.log");
    let redis = format!("redis://127.0.0.1:{}", free_port());
    let command = ["up", "--redis", &redis, "--port-base", &base.to_string()].map(PathBuf::from);
    let command: Vec<PathBuf> = std::iter::once(program("tutti")).chain(command).collect();
    let _up = Owned::start_with(&command, "KILL", &log, BTreeMap::new()).unwrap();
    let said = || std::fs::read_to_string(&log).unwrap();
    eventually("it says so", || async { said().contains("Not ready after") }).await;
    assert!(
        said().contains("redis (") && said().contains("ConnectionRefused") && !said().contains("Ready."),
        "{}",
        said()
    );
}

#[tokio::test]
async fn tutti_up_runs_everything_takes_fixes_from_any_kafka_client_and_ends_cleanly() {
    let base = port_base();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("up.log");
    let command =
        [program("tutti").into_os_string(), "up".into(), "--port-base".into(), base.to_string().into()];
    let up = Owned::start_with(&command, "KILL", &log, BTreeMap::new()).unwrap();
    let said = || std::fs::read_to_string(&log).unwrap();
    eventually("it is ready", || async { said().contains("Ready.") }).await;
    let edges = [format!("http://127.0.0.1:{base}"), format!("http://127.0.0.1:{}", base + 1)];
    for edge in &edges {
        assert!(said().contains(edge), "{}", said());
        let map = reqwest::get(format!("{edge}/v1/map/locations")).await.unwrap();
        let map: serde_json::Value = map.json().await.unwrap();
        assert_ne!(map["locations"], json!([]), "it is ready, and no fix has come through");
        let viewer = Following::start(&format!("{edge}/v1/map/stream")).await;
        eventually("taxis move", || async { viewer.viewer().devices.len() > 100 }).await;
    }
    let broker = format!("127.0.0.1:{}", base + 2);
    let publisher = Publisher::new(&broker, "media-locations").unwrap();
    publisher.send("me", Some(fix("me", now_ms()).as_bytes())).await.unwrap();
    for edge in &edges {
        let viewer = Following::start(&format!("{edge}/v1/map/stream")).await;
        eventually("the fix is on both", || async { viewer.viewer().devices.contains_key("me") }).await;
    }

    let rooms = reqwest::Client::new();
    // There must be one visitor only: any other would have to wait behind it.
    let visit = key();
    let join = async || {
        let url = format!("{}/v1/rooms/demo/tickets", edges[0]);
        let answer = rooms.post(url).header("idempotency-key", &visit).send().await.unwrap();
        answer.json::<serde_json::Value>().await.unwrap_or_default()
    };
    eventually("its waiting room lets in", || async { join().await["state"] == "admitted" }).await;

    let user = sign(DEVELOPMENT_SECRET, "7", "", Duration::from_secs(60)).unwrap();
    let listed = async || {
        let answer = rooms.get(format!("{}/v1/inbox", edges[0])).bearer_auth(&user).send().await.unwrap();
        answer.json::<serde_json::Value>().await.unwrap_or_default()
    };
    eventually("its users are told something", || async { listed().await["unread"].as_u64() > Some(0) })
        .await;

    let second =
        Command::new(program("tutti")).args(["up", "--port-base", &base.to_string()]).output().unwrap();
    assert!(!second.status.success());
    let why = String::from_utf8(second.stderr).unwrap();
    assert!(why.contains("in use") && why.contains("--port-base"), "{why}");

    let redis = base + 3;
    assert!(wait_for_port(redis, Duration::from_secs(1)).is_ok());
    kill(Pid::from_raw(up.pid() as i32), Signal::SIGINT).unwrap();
    eventually("it ends", || async { !std::path::Path::new(&format!("/proc/{}/exe", up.pid())).exists() })
        .await;
    for port in [base, base + 1, base + 2, redis] {
        eventually("no process is left", || async {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_err()
        })
        .await;
    }
    assert!(said().contains("stopping"));
}

#[tokio::test]
async fn the_page_shows_moving_devices_and_goes_on_at_the_other_edge() {
    let testbed = Testbed::new(2).await;
    let ingest = testbed.ingest(&[]);
    let (first, second) = (free_port(), free_port());
    let edges = format!("http://127.0.0.1:{first},http://127.0.0.1:{second}");
    let edge = |port: u16| {
        let listen = format!("127.0.0.1:{port}");
        testbed.edge(&[
            ("http.listen", &listen),
            ("http.edges", &edges),
            ("cors.origins", "*"),
            ("streams.drain_seconds", "1"),
        ])
    };
    let (a, b) = (edge(first), edge(second));
    for service in [&ingest, &a.service, &b.service] {
        service.wait_ready().await;
    }
    let publisher = testbed.publisher();
    let flow = tokio::spawn(async move {
        let mut input = Input::new(50);
        input.send_for(&publisher, Duration::from_secs(300), 200).await;
    });

    let browser = Browser::start(testbed.folder()).await;
    browser.client.goto(&format!("http://127.0.0.1:{first}/")).await.unwrap();
    eventually("50 devices are drawn", || async {
        browser.tell("document.querySelector('#devices').textContent").await == "50"
    })
    .await;
    let newest = "Math.max(...[...window.tutti.devices.values()].map(d => d.timestamp))";
    let moved_on = async |since: i64| {
        eventually("they move", || async { browser.tell(newest).await.as_i64() > Some(since) }).await;
    };
    let before = browser.tell(newest).await.as_i64().unwrap();
    moved_on(before).await;
    let state = async || browser.tell("document.querySelector('#state').dataset.state").await;
    let at = async || browser.tell("window.tutti.edge").await;
    assert_eq!(state().await, "live");
    assert_eq!(at().await, format!("http://127.0.0.1:{first}"));

    a.service.signal(Signal::SIGTERM);
    eventually("it goes to the other edge", || async {
        at().await == format!("http://127.0.0.1:{second}") && state().await == "live"
    })
    .await;
    moved_on(now_ms()).await;
    assert_eq!(browser.tell("window.tutti.resets").await, 0, "the page resumed, without a reset");
    assert_eq!(browser.tell("document.querySelector('#devices').textContent").await, "50");
    browser.client.close().await.unwrap();
    flow.abort();
}

/// Passes everything on to an edge, for a client that accepts one content coding only.
struct Proxy {
    url: String,
    _process: Owned,
}

impl Proxy {
    /// Starts a proxy that refuses this many streams at first.
    fn start(testbed: &Testbed, edge: &str, coding: &str, refused: u32) -> Self {
        let pass = "const http = require('http'), { PORT, EDGE, CODING, REFUSED } = process.env; \
                    let left = REFUSED; \
                    http.createServer((asked, answer) => { \
                      const { method } = asked, headers = { ...asked.headers, 'accept-encoding': CODING }; \
                      if (asked.url.includes('/stream') && left-- > 0) return answer.writeHead(503).end(); \
                      const passed = http.request(EDGE + asked.url, { method, headers }, got => { \
                        answer.writeHead(got.statusCode, got.headers); got.pipe(answer); }); \
                      answer.on('close', () => passed.destroy()); passed.on('error', () => answer.destroy()); \
                      asked.pipe(passed); \
                    }).listen(PORT, '127.0.0.1')";
        let port = free_port();
        let variables = [
            ("PORT", port.to_string()),
            ("EDGE", edge.to_owned()),
            ("CODING", coding.to_owned()),
            ("REFUSED", refused.to_string()),
        ];
        let variables = BTreeMap::from(variables.map(|(name, value)| (name.to_owned(), value)));
        let log = testbed.folder().join("proxy.log");
        let command = ["node", "-e", pass].map(PathBuf::from);
        let process = Owned::start_with(&command, "TERM", &log, variables).unwrap();
        wait_for_port(port, Duration::from_secs(20)).unwrap();
        Self { url: format!("http://127.0.0.1:{port}"), _process: process }
    }
}

#[tokio::test]
async fn chromium_takes_the_map_in_each_coding_and_its_page_holds_what_the_edge_holds() {
    let testbed = Testbed::new(1).await.with("locations.stale_after_seconds", "600");
    let (_ingest, [edge]) = testbed.up([&[]]).await;
    let (publisher, mut input) = (testbed.publisher(), Input::new(2000));
    input.send(&publisher, 2000).await;
    eventually("all are there", || async { edge.map().await == input.expected }).await;
    let plain: usize = input.expected.iter().map(|(id, at)| fix(id, *at).len()).sum();

    let browser = Browser::start(testbed.folder()).await;
    let map = "Object.fromEntries([...window.tutti.devices].map(([id, d]) => [id, d.timestamp]))";
    let held = async || serde_json::from_value::<Map>(browser.tell(map).await).unwrap_or_default();
    let written = async || edge.service.metric("tutti_edge_delivered_bytes_total").await;
    // Chromium asks with its own codings, and through a proxy with one coding each.
    for coding in [None, Some("identity"), Some("gzip"), Some("zstd")] {
        let (proxy, before) =
            (coding.map(|coding| Proxy::start(&testbed, &edge.url, coding, 0)), written().await);
        browser.client.goto(proxy.as_ref().map_or(&edge.url, |proxy| &proxy.url)).await.unwrap();
        eventually("the page holds the map", || async { held().await == input.expected }).await;
        let bytes = written().await - before;
        let compressed = coding != Some("identity");
        assert_eq!(bytes * 2.0 < plain as f64, compressed, "{coding:?}: {bytes} of {plain}");
        input.send(&publisher, 2000).await;
        eventually("it goes on", || async { held().await == input.expected }).await;

        let fetching = "fetch('/v1/map/stream?maxSeconds=2').then(async answer => {
            const text = await answer.text();
            window.fetched = [answer.headers.get('content-encoding') ?? 'identity', text.endsWith('\\n\\n')];
        }), 0";
        browser.tell(fetching).await;
        eventually("what it fetches ends", || async { browser.tell("window.fetched").await.is_array() })
            .await;
        let fetched = browser.tell("window.fetched").await;
        let wanted = coding.map_or(vec!["gzip", "zstd"], |coding| vec![coding]);
        assert!(wanted.iter().any(|coding| fetched == json!([coding, true])), "{coding:?}: {fetched}");
    }
    browser.client.close().await.unwrap();
}

#[tokio::test]
async fn a_visitor_gets_in_by_the_page_of_a_waiting_room() {
    let rooms = Rooms::start(Testbed::new(1).await, 1, &[]).await;
    let edge = rooms.edge(&[]).await;
    rooms.put(&edge, "sale", r#"{"maxActive":1,"admitPerSecond":50}"#).await;
    let inside = rooms.join(&edge, "sale").await;
    let waits = rooms.join(&edge, "sale").await;

    let browser = Browser::start(rooms.testbed.folder()).await;
    // After an answer of the proxy itself an EventSource gives up for good. The page must not.
    let proxy = Proxy::start(&rooms.testbed, &edge.url, "identity", 2);
    browser.client.goto(&format!("{}/rooms/sale", proxy.url)).await.unwrap();
    let place = async || browser.tell("document.querySelector('#place').textContent").await;
    eventually("it shows the place", || async { place().await == "2" }).await;
    browser.client.refresh().await.unwrap();
    eventually("a reload keeps it", || async { place().await == "2" }).await;
    assert_eq!(rooms.room(&edge, "sale").await["figures"]["joined"], 3);
    rooms.act(Method::DELETE, &edge, "sale", &waits, "").await;
    eventually("it moves up", || async { place().await == "1" }).await;
    let offline = "(() => { const fetching = window.fetch; window.failed = 0;
        window.fetch = (url, how) => url.endsWith('/claim') && window.failed++ < 2
            ? Promise.reject(new TypeError('offline')) : fetching(url, how); })()";
    browser.tell(offline).await;
    rooms.act(Method::POST, &edge, "sale", &inside, "/release").await;
    eventually("it is in", || async { place().await == "✓" }).await;
    assert_eq!(browser.tell("window.failed").await, 3, "it claimed again and again");
    let figures = rooms.room(&edge, "sale").await["figures"].clone();
    assert_eq!((&figures["active"], &figures["claimed"]), (&json!(1), &json!(1)));
    browser.client.close().await.unwrap();
}
