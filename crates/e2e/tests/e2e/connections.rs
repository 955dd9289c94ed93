//! Connections that are not streams: what one may cost, and what is answered on it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tutti::local::Owned;
use tutti_e2e::inboxes::{Inboxes, sender, token};
use tutti_e2e::service::variable;
use tutti_e2e::service::{Service, program};
use tutti_e2e::testbed::{Edge, Testbed, UNLIMITED};
use tutti_e2e::{eventually, free_port, kafka};

async fn connect(edge: &Edge) -> TcpStream {
    TcpStream::connect(edge.url.trim_start_matches("http://")).await.expect("the edge listens")
}

/// Sends a request, closes this side of the connection, and returns the whole answer.
async fn ask(edge: &Edge, request: &[u8]) -> String {
    let mut socket = connect(edge).await;
    socket.write_all(request).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Starts an edge with settings of its own, and waits until it listens. There is no map, so it may never be ready.
async fn listening(testbed: &Testbed, settings: &[(&str, &str)]) -> Edge {
    let edge = testbed.edge(settings);
    eventually("it listens", || async { reqwest::get(format!("{}/v1/edges", edge.url)).await.is_ok() }).await;
    edge
}

/// Returns the problem document in an answer.
fn problem(answer: &str) -> Value {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let head = head.to_lowercase();
    assert!(head.contains("content-type: application/problem+json"), "{answer}");
    assert!(head.contains("x-content-type-options: nosniff"), "{answer}");
    assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{answer}");
    serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}"))
}

/// Returns the CPU time that a service has used, in ticks of 10 ms.
fn ticks(service: &Service) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", service.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Returns the ticks that a service uses within 3 s.
async fn ticks_in_a_while(service: &Service) -> u64 {
    let before = ticks(service);
    sleep(Duration::from_secs(3)).await;
    ticks(service) - before
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_send_many_requests_and_take_no_answer_cost_little_memory_and_no_time() {
    const CONNECTIONS: u64 = 40;
    const MOST_BYTES: u64 = 256 << 10;
    let testbed = Testbed::new(1).await;
    let edge = listening(&testbed, &[UNLIMITED[0], UNLIMITED[1], ("http.request_seconds", "600")]).await;
    let small = "GET / HTTP/1.1\r\nHost:a\r\n\r\n".repeat(20_000);
    // The edge allocates an object for each of these chunks.
    let chunks = format!(
        "POST /nowhere HTTP/1.1\r\nHost:a\r\nTransfer-Encoding:chunked\r\n\r\n{}0\r\n\r\n{}",
        "1\r\na\r\n".repeat(10_000),
        "GET / HTTP/1.1\r\nHost:a\r\n\r\n".repeat(20_000)
    );
    for requests in [small, chunks] {
        let (idle, before) = (ticks_in_a_while(&edge.service).await, edge.service.resident_bytes());
        let sent = Arc::new(AtomicU64::new(0));
        let mut clients = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (mut socket, sent, requests) = (connect(&edge).await, sent.clone(), requests.clone());
            clients.spawn(async move {
                for piece in requests.as_bytes().chunks(1000) {
                    socket.write_all(piece).await.unwrap();
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                socket
            });
        }
        let mut last = 0;
        eventually("the edge takes no more", || {
            let now = sent.load(Ordering::Relaxed);
            let is_still = now > 0 && now == std::mem::replace(&mut last, now);
            async move {
                sleep(Duration::from_secs(1)).await;
                is_still
            }
        })
        .await;
        let each = edge.service.resident_bytes().saturating_sub(before) / CONNECTIONS;
        assert!(each <= MOST_BYTES, "{each} bytes a connection");
        let used = ticks_in_a_while(&edge.service).await;
        assert!(used <= idle + 30, "{used} ticks in 3 s, and {idle} without them");
        clients.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_requests_of_a_connection_are_answered_in_their_order_however_they_come() {
    let testbed = Testbed::new(1).await;
    let edge = listening(&testbed, &[]).await;
    let some = "GET /a HTTP/1.1\r\nhost: a\r\n\r\n\
        POST /b HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n\
        POST /c HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\n\r\n\r\r\n0\r\n\r\n\
        HEAD /d HTTP/1.1\r\nhost: a\r\n\r\n\
        OPTIONS /e HTTP/1.1\r\nhost: a\r\norigin: http://b\r\naccess-control-request-method: GET\r\n\r\n\
        POST /f HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\nx";
    let statuses = |answer: &str| answer.matches("HTTP/1.1 404").count();
    let one = ask(&edge, some.as_bytes()).await;
    assert_eq!(one.matches("HTTP/1.1 ").count() - one.matches("HTTP/1.1 100").count(), 6, "{one}");
    assert_eq!(statuses(&one), 5, "{one}");
    let places: Vec<_> = ["/a", "/b", "/c", "/f"].map(|path| one.find(path)).into();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{one}");

    // The request comes in pieces, each in a packet of its own.
    let (mut reader, mut writer) = connect(&edge).await.into_split();
    let writing = async {
        for piece in some.as_bytes().chunks(7) {
            writer.write_all(piece).await.unwrap();
            writer.flush().await.unwrap();
            sleep(Duration::from_millis(2)).await; // so that they arrive as pieces
        }
        writer.shutdown().await.unwrap();
    };
    let mut answer = Vec::new();
    let (_, read) = tokio::join!(writing, reader.read_to_end(&mut answer));
    read.unwrap();
    assert_eq!(statuses(&String::from_utf8_lossy(&answer)), 5);

    // The answer is larger than what sockets hold, and the client begins to read late.
    let (mut reader, mut writer) = connect(&edge).await.into_split();
    let sent = Arc::new(AtomicU64::new(0));
    let (ours, page) = (sent.clone(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let writing = tokio::spawn(async move {
        for _ in 0..300 {
            writer.write_all(page.repeat(10).as_bytes()).await.unwrap();
            ours.fetch_add(10, Ordering::Relaxed);
        }
        writer.shutdown().await.unwrap();
    });
    eventually("some are sent", || async { sent.load(Ordering::Relaxed) > 1000 }).await;
    let (mut buffer, mut tail, mut answers) = (vec![0; 1 << 16], Vec::new(), 0);
    loop {
        let n = reader.read(&mut buffer).await.unwrap();
        if n == 0 {
            break;
        }
        // A piece may end with the beginning of the word, so it is searched together with the next one.
        tail.extend_from_slice(&buffer[..n]);
        answers += tail.windows(12).filter(|word| word == b"HTTP/1.1 200").count();
        tail.drain(..tail.len().saturating_sub(11));
    }
    writing.await.unwrap();
    assert_eq!(answers, 3000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_its_side_behind_a_request_gets_the_answer() {
    let inboxes = Inboxes::start(kafka::shared(), 1).await;
    let edge = inboxes.edge(&[]).await;
    let body = r#"{"to":{"users":["7"]},"title":"hello"}"#;
    for chunked in [false, true] {
        let (framing, body) = if chunked {
            ("transfer-encoding: chunked".to_owned(), format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()))
        } else {
            (format!("content-length: {}", body.len()), body.to_owned())
        };
        for n in 0..25 {
            let request = format!(
                "POST /v1/notifications HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer {}\r\n\
                idempotency-key: key-{chunked}-{n}\r\n{framing}\r\n\r\n{body}",
                sender()
            );
            let answer = ask(&edge, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 202 "), "{n}: {answer:?}");
        }
    }
    let cut = "POST /v1/notifications HTTP/1.1\r\nhost: edge\r\ncontent-length: 99\r\n\r\n{";
    assert!(ask(&edge, cut.as_bytes()).await.starts_with("HTTP/1.1 401 "), "without waiting for the rest");

    // The stream ends because this side of the connection is closed: to the edge, the client is gone.
    let answer = ask(&edge, b"GET /v1/map/stream HTTP/1.1\r\nhost: edge\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("retry: "), "{answer}");
    eventually("nothing is left of it", || async { edge.service.metric("tutti_edge_streams").await == 0.0 })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_answered_with_a_problem_and_counted_but_is_no_line_of_the_log() {
    let testbed = Testbed::new(1).await;
    let settings = [UNLIMITED[0], UNLIMITED[1], ("http.header_seconds", "2"), ("log.level", "debug")];
    let edge = listening(&testbed, &settings).await;
    let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "a".repeat(300_000));
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "a: b\r\n".repeat(200));
    let late = "GET / HTTP/1.1\r\nhost:";
    let behind = "GET /v1/edges HTTP/1.1\r\nhost: a\r\n\r\nnonsense\r\n\r\n";
    for (what, status) in [
        ("nonsense\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\n\r\n", 400),
        (&long, 431),
        (&many, 431),
        (late, 408),
        (behind, 400),
    ] {
        let mut socket = connect(&edge).await;
        // The edge may close the connection before it has all of the request.
        let (mut reader, mut writer) = socket.split();
        let mut answer = Vec::new();
        let (_, read) = tokio::join!(writer.write_all(what.as_bytes()), reader.read_to_end(&mut answer));
        read.unwrap_or_else(|e| panic!("{status}: {e}"));
        let answer = String::from_utf8_lossy(&answer);
        let last = &answer[answer.rfind("HTTP/1.1 ").unwrap_or_else(|| panic!("{status}: {answer:?}"))..];
        assert!(last.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert_eq!(problem(last)["status"], status);
    }
    let counted = async || edge.service.metric("tutti_edge_requests_unreadable_total").await;
    assert_eq!(counted().await, 7.0);
    for _ in 0..500 {
        ask(&edge, b"nonsense\r\n\r\n").await;
    }
    assert_eq!(counted().await, 507.0);
    let log = edge.service.log();
    assert!(!log.contains("ERROR"), "{log}");
    assert!(log.lines().count() < 100, "{log}");
}

/// Returns the number of files that a process has open.
fn files(service: &Service) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", service.pid())).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_combined_stream_is_one_open_file_however_many_parts_it_has() {
    const STREAMS: usize = 20;
    let inboxes = Inboxes::start(kafka::shared(), 1).await;
    let edge = inboxes.edge(&[]).await;
    let before = files(&edge.service);
    let request = format!(
        "GET /v1/stream?inbox&map HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer {}\r\n\r\n",
        token("7")
    );
    let mut sockets = Vec::new();
    for _ in 0..STREAMS {
        let mut socket = connect(&edge).await;
        socket.write_all(request.as_bytes()).await.unwrap();
        sockets.push(socket);
    }
    let streams = async || edge.service.metric("tutti_edge_streams").await;
    eventually("all are open, and their parts", || async { streams().await == 3.0 * STREAMS as f64 }).await;
    // A few files belong to connections that come and go: to Redis, and from requests for metrics.
    let files = files(&edge.service);
    assert!(files < before + STREAMS + 10, "{before} files before, {files} with {STREAMS} streams");
}

/// Starts an edge through a shell that limits its open files. Returns its port, its admin port and its log.
fn edge_with_files(testbed: &Testbed, limit: u32, settings: &[(&str, &str)]) -> (Owned, u16, u16, PathBuf) {
    let (port, admin) = (free_port(), free_port());
    let log = testbed.folder().join(format!("edge-{port}.log"));
    let mut variables = testbed.settings.clone();
    variables.insert("TUTTI_HTTP_LISTEN".into(), format!("127.0.0.1:{port}"));
    variables.insert("TUTTI_ADMIN_LISTEN".into(), format!("127.0.0.1:{admin}"));
    variables.insert("TUTTI_HTTP_WORKERS".into(), "2".into());
    variables.extend(settings.iter().map(|(key, value)| (variable(key), (*value).to_owned())));
    let command = format!("ulimit -n {limit}; exec {}", program("tutti-edge").display());
    let process = Owned::start_with(&["sh", "-c", &command], "KILL", &log, variables);
    (process.unwrap(), port, admin, log)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_whose_streams_would_take_all_open_files_says_so_and_does_not_start() {
    let testbed = Testbed::new(1).await;
    let (_edge, _, _, log) = edge_with_files(&testbed, 1000, &[("streams.max", "700")]);
    let log = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("it says what is wrong", || async {
        log().contains("streams.max = 700 needs 1244 open files")
    })
    .await;
    assert!(log().contains("this process may open 1000: lower streams.max to 456"), "{}", log());
    assert!(!log().contains("serving"), "{}", log());
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_connect_the_admin_port_answers_and_nothing_is_an_error() {
    const CLIENTS: usize = 900;
    tutti_service::raise_file_limit();
    let testbed = Testbed::new(1).await;
    let settings = [
        UNLIMITED[0],
        UNLIMITED[1],
        ("streams.max", "50"),
        ("http.header_seconds", "600"),
        ("http.request_seconds", "600"),
    ];
    let (_edge, port, admin, log) = edge_with_files(&testbed, 700, &settings);
    eventually("it listens", || async { TcpStream::connect(("127.0.0.1", port)).await.is_ok() }).await;
    let mut sockets = Vec::new();
    for _ in 0..CLIENTS {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        socket.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        sockets.push(socket);
    }
    // The edge has accepted as many connections as it can, and lets the others wait.
    for _ in 0..20 {
        let url = format!("http://127.0.0.1:{admin}/metrics");
        let asked = tutti_e2e::client().get(url).timeout(Duration::from_secs(60)).send().await;
        let answer = asked.expect("the admin port answers");
        assert_eq!(answer.status(), 200);
        sleep(Duration::from_millis(100)).await; // so that the edge has time to run out of files
    }
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(!log.contains("ERROR") && log.contains("http.max_connections is lowered"), "{log}");
    // The clients that wait are served when others leave.
    let mut last = sockets.pop().unwrap();
    drop(sockets);
    last.write_all(b"host: a\r\n\r\n").await.unwrap();
    let mut status = [0; 12];
    last.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_problems_are_what_they_say_and_no_other_page_frames_them() {
    let testbed = Testbed::new(1).await;
    let edge = listening(&testbed, &[]).await;
    for path in ["/", "/rooms/demo"] {
        let page = reqwest::get(format!("{}{path}", edge.url)).await.unwrap();
        assert_eq!(page.headers()["x-content-type-options"], "nosniff");
        let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(
            policy.contains("frame-ancestors 'none'") && policy.contains("script-src 'sha256-"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
    }
    let preflight = "OPTIONS /v1/map/locations HTTP/1.1\r\nhost: a\r\norigin: http://b\r\n\
        access-control-request-method: GET\r\n\r\n";
    let refused = [
        ("GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n", 404),
        ("POST / HTTP/1.1\r\nhost: a\r\n\r\n", 405),
        (preflight, 400),
    ];
    for (request, status) in refused {
        let answer = ask(&edge, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert_eq!(problem(&answer)["status"], status);
    }
}
