//! The limits of one client, and clients that leave requests unfinished.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Client, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tutti_e2e::fixes::{Input, map_of_viewer, padded_fix};
use tutti_e2e::inboxes::{Inboxes, token};
use tutti_e2e::testbed::{Edge, Testbed};
use tutti_e2e::viewer::Following;
use tutti_e2e::wire::is_busy;
use tutti_e2e::{eventually, kafka};

/// Opens a stream. Returns `None` if the edge turned it away.
async fn open(edge: &Edge, path: &str, headers: &[(&str, &str)]) -> Option<Response> {
    let request = Client::new().get(format!("{}{path}", edge.url));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status(), 200, "any other status ends an EventSource for good");
    let first = response.chunk().await.unwrap().expect("it says something");
    if first.starts_with(b"event: heartbeat\n") {
        return Some(response);
    }
    assert!(is_busy(std::str::from_utf8(&first).unwrap(), ""), "{first:?}");
    while response.chunk().await.unwrap().is_some() {}
    None
}

async fn open_for(edge: &Edge, address: &str) -> Option<Response> {
    open(edge, "/v1/map/stream", &[("x-forwarded-for", address)]).await
}

/// Opens a connection without a request.
async fn connect(url: &str) -> TcpStream {
    let address = url.trim_start_matches("http://");
    loop {
        match TcpStream::connect(address).await {
            Ok(socket) => return socket,
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Writes `first`, then `then` byte by byte and over again, with a pause before each byte, until the edge closes the
/// connection. Returns the answer.
async fn drip(socket: TcpStream, first: &str, then: &str, pause: Duration) -> String {
    let (mut reader, mut writer) = socket.into_split();
    let mut answer = Vec::new();
    let dripping = async {
        let mut left = writer.write_all(first.as_bytes()).await;
        for byte in then.bytes().cycle() {
            if left.is_err() {
                break;
            }
            sleep(pause).await; // this is what makes it slow
            left = writer.write_all(&[byte]).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        // If the edge closes the connection while this side writes, the read may end with a reset.
        _ = reader.read_to_end(&mut answer) => {}
        () = dripping => {}
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn an_address_has_so_many_streams_and_a_proxy_is_believed_only_if_it_is_trusted() {
    let testbed = Testbed::new(1).await;
    let settings = [("streams.max_per_address", "3"), ("http.trusted_proxies", "192.0.2.0/24,127.0.0.1/32")];
    let (_ingest, [trusting, other]) = testbed.up([&settings, &settings[..1]]).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(open_for(&trusting, "203.0.113.9").await.expect("one of three"));
    }
    assert!(open_for(&trusting, "203.0.113.9").await.is_none(), "the fourth");
    assert!(open_for(&trusting, "198.51.100.1, 203.0.113.9:1234, 192.0.2.1").await.is_none(), "the same");
    assert_eq!(trusting.service.metric("tutti_edge_streams_turned_away_total").await, 2.0);
    let _another = open_for(&trusting, "203.0.113.10").await.expect("another address has its own");
    streams.pop();
    eventually("where one has ended another is served", || async {
        open_for(&trusting, "203.0.113.9").await.is_some()
    })
    .await;

    for n in 0..3 {
        streams.push(open_for(&other, &format!("203.0.113.{n}")).await.expect("one of three"));
    }
    assert!(open_for(&other, "203.0.113.9").await.is_none(), "all are of the address that asks");
}

#[tokio::test]
async fn a_user_has_so_many_streams_and_a_combined_one_is_one() {
    let inboxes = Inboxes::start(kafka::shared(), 1).await;
    let ingest = inboxes.ingest();
    let edge = inboxes.edge(&[("streams.max_per_user", "2")]).await;
    ingest.wait_ready().await;
    let bearer = |user: &str| format!("Bearer {}", token(user));
    let (seven, eight) = (bearer("7"), bearer("8"));
    for (path, user) in [("/v1/inbox/stream", &seven), ("/v1/stream?inbox&map", &eight)] {
        let headers = [("authorization", user.as_str())];
        let _first = open(&edge, path, &headers).await.expect("one of two");
        let _second = open(&edge, path, &headers).await.expect("the other");
        assert!(open(&edge, path, &headers).await.is_none(), "{path}");
        let nine = bearer("9");
        assert!(
            open(&edge, path, &[("authorization", nine.as_str())]).await.is_some(),
            "others have their own"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_connections_that_never_finish_a_request_keep_no_viewer_out() {
    const CONNECTIONS: usize = 5000;
    tutti_service::raise_file_limit();
    let testbed = Testbed::new(1).await.with("locations.stale_after_seconds", "600");
    // The limit leaves enough time for all connections to be open at once.
    let settings = [("http.header_seconds", "20"), ("http.max_connections_per_address", "0")];
    let (_ingest, [edge]) = testbed.up([&settings]).await;
    let publisher = testbed.publisher();
    let mut input = Input::new(20);
    let (connected, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for n in 0..CONNECTIONS {
        let (url, connected, ended) = (edge.url.clone(), connected.clone(), ended.clone());
        clients.spawn(async move {
            let socket = connect(&url).await;
            connected.fetch_add(1, Ordering::Relaxed);
            if n % 2 == 0 {
                drip(socket, "", "", Duration::ZERO).await;
            } else {
                drip(socket, "GET /v1/map/stream HTTP/1.1\r\nx: ", "a", Duration::from_secs(1)).await;
            }
            ended.fetch_add(1, Ordering::Relaxed);
        });
    }
    eventually("all are connected", || async { connected.load(Ordering::Relaxed) == CONNECTIONS }).await;
    let viewer = Following::start(&edge.stream()).await;
    input.send(&publisher, 20).await;
    eventually("the viewer is shown the map", || async { map_of_viewer(&viewer.viewer()) == input.expected })
        .await;
    while ended.load(Ordering::Relaxed) < CONNECTIONS {
        input.send(&publisher, 20).await;
        eventually("the viewer goes on", || async { map_of_viewer(&viewer.viewer()) == input.expected })
            .await;
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    assert!(viewer.is_open());
}

#[tokio::test]
async fn what_is_never_finished_is_ended_whatever_it_is() {
    let testbed = Testbed::new(1).await;
    let settings = [("http.header_seconds", "2"), ("http.idle_seconds", "2"), ("http.request_seconds", "2")];
    let edge = testbed.edge(&settings);
    eventually("it listens", || async { reqwest::get(format!("{}/v1/edges", edge.url)).await.is_ok() }).await;
    let get = "GET /v1/edges HTTP/1.1\r\nhost: edge\r\n";
    let body = "POST /v1/notifications HTTP/1.1\r\nhost: edge\r\ncontent-length: 100000\r\n\r\n";
    let unread = "POST /nowhere HTTP/1.1\r\nhost: edge\r\ntransfer-encoding: chunked\r\n\r\n";
    for (what, first, then, answer) in [
        ("a head", format!("{get}x: "), "a", "HTTP/1.1 408 "),
        ("silence", String::new(), "", ""),
        ("the head after another request", format!("{get}\r\n{get}x: "), "a", "HTTP/1.1 200 "),
        ("a pause between requests", format!("{get}\r\n"), "", "HTTP/1.1 200 "),
        ("a body", body.to_owned(), "a", "HTTP/1.1 401 "),
        ("a body that no handler reads", unread.to_owned(), "1\r\na\r\n", "HTTP/1.1 404 "),
    ] {
        let dripping = drip(connect(&edge.url).await, &first, then, Duration::from_millis(100));
        let answered = timeout(Duration::from_secs(90), dripping).await;
        let answered = answered.unwrap_or_else(|_| panic!("the edge does not end {what}"));
        assert!(answered.starts_with(answer), "{what}: {answered}");
        assert!(!answer.is_empty() || answered.is_empty(), "{what}: {answered}");
    }
}

#[tokio::test]
async fn an_address_has_so_many_connections_without_a_stream_and_a_query_has_a_length() {
    let testbed = Testbed::new(1).await;
    let edge = testbed.edge(&[("http.max_connections_per_address", "2")]);
    let url = format!("{}/v1/edges", edge.url);
    eventually("it listens", || async { reqwest::get(&url).await.is_ok() }).await;
    let refused = async || edge.service.metric("tutti_edge_connections_refused_total").await;
    eventually("what asked so is gone", || async {
        let before = refused().await;
        let both = (connect(&edge.url).await, connect(&edge.url).await);
        let ours = reqwest::get(&url).await;
        drop(both);
        ours.is_err() && refused().await > before
    })
    .await;
    eventually("who has closed them may come again", || async { reqwest::get(&url).await.is_ok() }).await;
    let long = format!("{url}?since={}", "a".repeat(30_000));
    let answer = reqwest::get(long).await.unwrap();
    assert_eq!(answer.status(), 414);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
}

/// Requests the whole map, and reads nothing of the answer but its status.
async fn take_nothing(edge: &Edge, address: &str) -> (String, TcpStream) {
    let mut socket = connect(&edge.url).await;
    let request =
        format!("GET /v1/map/locations HTTP/1.1\r\nhost: edge\r\nx-forwarded-for: {address}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    socket.read_exact(&mut status).await.unwrap();
    (String::from_utf8_lossy(&status).into_owned(), socket)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_takes_nothing_of_its_answers_gets_no_more_of_them() {
    let testbed = Testbed::new(1).await.with("locations.stale_after_seconds", "600");
    let (_ingest, [edge]) = testbed.up([&[("http.trusted_proxies", "127.0.0.1/32")]]).await;
    // The map has 16 MB, more than sockets hold.
    let (publisher, padding) = (testbed.publisher(), "p".repeat(1000));
    let mut input = Input::new(15_000);
    input.send_each(&publisher, 15_000, |id, at| padded_fix(id, at, &padding)).await;
    eventually("the map is there", || async { edge.map().await.len() == 15_000 }).await;
    let mut taken = Vec::new();
    loop {
        let (status, socket) = take_nothing(&edge, "203.0.113.9").await;
        if status == "HTTP/1.1 503" {
            break;
        }
        assert_eq!(status, "HTTP/1.1 200");
        taken.push(socket);
    }
    assert!((2..=5).contains(&taken.len()), "64 MB: {}", taken.len());
    assert_eq!(take_nothing(&edge, "203.0.113.10").await.0, "HTTP/1.1 200", "others have their own");
    taken.pop();
    eventually("who leaves may have another", || async {
        take_nothing(&edge, "203.0.113.9").await.0 == "HTTP/1.1 200"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_not_waited_for_without_a_token_that_is_good_for_it() {
    let inboxes = Inboxes::start(kafka::shared(), 1).await;
    let edge = inboxes.edge(&[("queue.urls", "http://127.0.0.1:1")]).await;
    for request in ["POST /v1/notifications", "POST /v1/inbox/read", "PUT /v1/rooms/a"] {
        let mut socket = connect(&edge.url).await;
        let head = format!("{request} HTTP/1.1\r\nhost: edge\r\ncontent-length: 9999\r\n\r\n{{");
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(std::str::from_utf8(&answer), Ok("HTTP/1.1 401"), "{request}");
    }
    // The body is larger than what sockets hold, so a reset in its middle could destroy the answer. The edge goes on
    // to read for a second; a client that is slower than that is cut off all the same.
    let body = vec![b'x'; 16 << 20];
    eventually("a client that sends all before it reads hears why", async || {
        let mut socket = connect(&edge.url).await;
        let head = format!(
            "POST /v1/notifications HTTP/1.1\r\nhost: edge\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        socket.write_all(&body).await.is_ok()
            && socket.read_exact(&mut answer).await.is_ok()
            && answer == *b"HTTP/1.1 401"
    })
    .await;
}

#[tokio::test]
async fn what_follows_the_request_of_a_stream_is_thrown_away() {
    let testbed = Testbed::new(1).await;
    let (_ingest, [edge]) = testbed.up([&[]]).await;
    let mut socket = connect(&edge.url).await;
    let both = "GET /v1/map/stream?maxSeconds=3 HTTP/1.1\r\nhost: edge\r\n\r\n\
        GET /v1/edges HTTP/1.1\r\nhost: edge\r\n\r\n";
    socket.write_all(both.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(answer.contains("retry: ") && answer.ends_with("0\r\n\r\n"), "{answer}");
    let counted = async || edge.service.metric("tutti_edge_streams").await;
    eventually("nothing is left of it", || async { counted().await == 0.0 }).await;
}
