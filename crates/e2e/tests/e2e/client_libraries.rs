//! Client libraries on real streams: what they show to their program, and whether they reconnect.

mod drivers;
mod table;

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, interval, sleep};
use tutti::local::{Owned, find, wait_for_port};
use tutti::token::sign;
use tutti_e2e::fixes::fix;
use tutti_e2e::rooms::SECRET;
use tutti_e2e::testbed::{Edge, Testbed};
use tutti_e2e::{free_port, kafka, unique};
use tutti_load::now_ms;
use tutti_load::publisher::Publisher;
use tutti_load::sse::{Request, Source};

use drivers::{Running, Shown, Stream, Tools, data};
use table::{Driver, End, LIBRARIES, Refusal};

/// The number of moves of the device on the map. It moves again once all clients have shown the move before.
const MOVES: u64 = 8;

/// The edges that clients follow.
struct Edges {
    /// Sends heartbeats each second, and is killed during the test.
    short: Edge,
    /// Sends no heartbeat but the first.
    quiet: Edge,
    /// Has room for one stream of each user.
    narrow: Edge,
}

impl Edges {
    async fn start(testbed: &Testbed, topic: &str) -> Self {
        let edge = |settings: &[(&str, &str)]| {
            let all = [("auth.hs256_secret", SECRET), ("topics.names", topic)];
            testbed.edge(&[&all, settings].concat())
        };
        let edges = Self {
            short: edge(&[("streams.heartbeat_seconds", "1")]),
            quiet: edge(&[("streams.heartbeat_seconds", "600"), ("streams.life_seconds", "600")]),
            narrow: edge(&[("streams.max_per_user", "1")]),
        };
        for (edge, _) in edges.all() {
            edge.service.wait_ready().await;
        }
        edges
    }

    /// Returns each edge, and its path behind nginx.
    fn all(&self) -> [(&Edge, &str); 3] {
        [(&self.short, "/short"), (&self.quiet, "/quiet"), (&self.narrow, "/narrow")]
    }
}

/// Starts nginx with TLS and HTTP/2, which serves the page and the edges at one origin. Returns that origin.
fn nginx(testbed: &Testbed, edges: &Edges) -> (Owned, String) {
    let (port, prefix) = (free_port(), testbed.folder().join("nginx"));
    std::fs::create_dir(&prefix).unwrap();
    std::fs::copy(table::folder().join("browser/follow.html"), prefix.join("follow.html")).unwrap();
    let key = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost \
               -keyout key.pem -out cert.pem";
    let made = Command::new("openssl").args(key.split_whitespace()).current_dir(&prefix).output();
    assert!(made.expect("apt-get install openssl").status.success(), "openssl makes a certificate");
    let proxied = edges.all().map(|(edge, path)| {
        format!(
            "location {path}/ {{ proxy_pass {}/; proxy_http_version 1.1; proxy_read_timeout 600s; }}",
            edge.url
        )
    });
    // Started by root, nginx would run its workers as another user, who may not read this folder.
    let conf = format!(
        "user root; worker_processes 1; daemon off; pid nginx.pid; events {{}}
         http {{
           access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
           uwsgi_temp_path uwsgi; scgi_temp_path scgi;
           server {{
             listen 127.0.0.1:{port} ssl http2; ssl_certificate cert.pem; ssl_certificate_key key.pem;
             location = /follow.html {{ root .; default_type text/html; }}
             {}
           }}
         }}",
        proxied.join("\n")
    );
    std::fs::write(prefix.join("nginx.conf"), conf).unwrap();
    // Debian installs nginx in a folder that is not in the PATH of users.
    let program = find("nginx").unwrap_or_else(|| "/usr/sbin/nginx".into());
    let prefix = format!("{}/", prefix.display());
    let command = [program.to_str().unwrap(), "-e", "stderr", "-p", prefix.as_str(), "-c", "nginx.conf"];
    let log = testbed.folder().join("nginx.log");
    let started = Owned::start(&command, "TERM", &log).unwrap();
    wait_for_port(port, Duration::from_secs(20))
        .unwrap_or_else(|_| panic!("{}", std::fs::read_to_string(&log).unwrap()));
    (started, format!("https://127.0.0.1:{port}"))
}

/// Waits until a condition holds for what each client was shown.
async fn all(clients: &[Running], what: &str, is_shown: impl Fn(&Running, &Shown) -> bool) {
    let until = Instant::now() + Duration::from_secs(120);
    for client in clients {
        while !client.shown(|shown| is_shown(client, shown)) {
            if Instant::now() > until {
                let name = client.library.name;
                panic!("waited in vain for {name}: {what}\n{}", client.shown(Shown::end));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Returns the numbers of the topic's records that a client was shown.
fn numbers(shown: &Shown, stream: &str) -> Vec<u64> {
    shown.events(stream).filter_map(|line| data(line)["n"].as_u64()).collect()
}

/// Returns the number of times that a stream has ended for a client.
fn ends(shown: &Shown, stream: &str) -> usize {
    shown.named(stream, "reconnect").count()
}

/// Sends records while streams end, and while their edge is killed and started again. Each client must be shown
/// each record once, in order.
async fn all_have_each_record_once(clients: &[Running], edge: &mut Edge, publisher: &Publisher) {
    let done = AtomicBool::new(false);
    let sending = async {
        let (mut sent, mut pace) = (0, interval(Duration::from_millis(50)));
        while !done.load(Ordering::Relaxed) {
            pace.tick().await;
            let value = json!({ "n": sent }).to_string();
            publisher.send("k", Some(value.as_bytes())).await.unwrap();
            sent += 1;
        }
        publisher.flush(Duration::from_secs(30)).await.unwrap();
        sent
    };
    let ending = async {
        all(clients, "two streams have ended", |_, shown| ends(shown, "topic") >= 2).await;
        edge.service.kill();
        let before: Vec<usize> =
            clients.iter().map(|client| client.shown(|shown| ends(shown, "topic"))).collect();
        edge.service.run();
        edge.service.wait_ready().await;
        for (client, before) in clients.iter().zip(before) {
            let one = std::slice::from_ref(client);
            all(one, "it comes back", |_, shown| ends(shown, "topic") > before).await;
        }
        done.store(true, Ordering::Relaxed);
    };
    let (sent, ()) = tokio::join!(sending, ending);
    let expected: Vec<u64> = (0..sent).collect();
    all(clients, "all records", |_, shown| numbers(shown, "topic").last() == expected.last()).await;
    for client in clients {
        let shown = client.shown(|shown| numbers(shown, "topic"));
        assert_eq!(shown, expected, "{}", client.library.name);
    }
}

/// Moves a device on an edge that sends nothing else, and waits each time until all clients have been shown the
/// move: no decoder may hold an event back until more follows.
async fn all_are_shown_each_move_at_once(clients: &[Running], publisher: &Publisher) {
    all(clients, "the map begins", |_, shown| {
        shown.named("map", "heartbeat").next().is_some() && shown.openings("map").next().is_some()
    })
    .await;
    let mut last = 0;
    for _ in 0..MOVES {
        last = now_ms().max(last + 1);
        publisher.send("device", Some(fix("device", last).as_bytes())).await.unwrap();
        all(clients, "a move", |_, shown| {
            shown.named("map", "liveMapLocation").any(|line| data(line)[0]["timestamp"] == last)
        })
        .await;
    }
    for client in clients {
        let (streams, codings) = client.shown(|shown| {
            let codings: Vec<String> = shown.openings("map").map(str::to_owned).collect();
            (shown.named("map", "heartbeat").count(), codings)
        });
        let Running { library, .. } = client;
        assert_eq!(streams, 1, "{} was shown all on one stream", library.name);
        for coding in codings {
            assert!(library.codings.contains(&coding.as_str()), "{}: {coding:?}", library.name);
        }
    }
}

/// Closes the other stream of each client's user, which leaves no room for a second. Before that, each client must
/// show `busy`. Then it must stay away for as long as the edge asked for, and come back.
async fn all_come_back_where_there_was_no_room(clients: &[Running], mut others: Vec<Source>) {
    all(clients, "busy", |_, shown| shown.named("busy", "busy").next().is_some()).await;
    others.clear();
    all(clients, "records where there was no room", |_, shown| !numbers(shown, "busy").is_empty()).await;
    for client in clients {
        let Running { library, .. } = client;
        let lines: Vec<Value> = client.shown(|shown| shown.events("busy").cloned().collect());
        for (turned_away, next) in lines.iter().zip(&lines[1..]).filter(|(line, _)| line["event"] == "busy") {
            let told = data(turned_away);
            assert_eq!(told["reason"], "user", "{}", library.name);
            let waited = next["at"].as_u64().unwrap().saturating_sub(turned_away["at"].as_u64().unwrap());
            let least = told["retryMs"].as_u64().unwrap() * u64::from(library.least_wait()) / 100;
            // A slow machine makes the wait longer, never shorter. Timers of libraries round down.
            assert!(waited + 100 >= least, "{} waited {waited} of {least} ms", library.name);
        }
    }
}

/// Waits until each client was refused, since it has no token here. The client must act as the documentation says,
/// and must also get the refusal as an event where it asks for one.
async fn all_are_refused(clients: &[Running]) {
    all(clients, "the refusal as an event", |_, shown| shown.is_over("refused event")).await;
    all(clients, "the refusal", |client, shown| match client.library.refusal {
        Refusal::Stops => shown.is_over("refused"),
        Refusal::AsksAgain(_) => shown.errors("refused").count() >= 2,
    })
    .await;
    for client in clients {
        let name = client.library.name;
        client.shown(|shown| {
            let events: Vec<&Value> = shown.events("refused event").collect();
            let [end] = events[..] else { panic!("{name}: {events:?}") };
            let told = data(end);
            assert_eq!(
                (&end["event"], &told["reason"], &told["status"]),
                (&json!("end"), &json!("unauthorized"), &json!(401)),
                "{name}"
            );
            assert_eq!(shown.events("refused").count(), 0, "{name}");
            match client.library.refusal {
                Refusal::Stops => {
                    assert!(shown.errors("refused").any(|error| error.contains("401")), "{name}");
                }
                Refusal::AsksAgain(_) => assert!(!shown.is_over("refused"), "{name}"),
            }
        });
    }
}

/// Waits until streams have ended for clients without the line that the documentation adds. Clients that need the
/// line must stop.
async fn those_stop_that_are_said_to(clients: &[Running]) {
    all(clients, "the end without a line of ours", |client, shown| match client.library.end {
        End::ComesBack => ends(shown, "bare") >= 2,
        End::StopsBut(_) => shown.is_over("bare"),
    })
    .await;
    for client in clients {
        if let End::StopsBut(_) = client.library.end {
            assert_eq!(client.shown(|shown| ends(shown, "bare")), 1, "{}", client.library.name);
        }
    }
}

/// Returns the streams that each client follows, given the base URLs of the three edges.
fn streams(topic: &str, token: &str, [short, quiet, narrow]: &[String; 3]) -> Vec<Stream> {
    let path = format!("/v1/topics/{topic}/stream?since=oldest");
    let stream = |name, url: String, token: &str| Stream { name, url, token: token.to_owned() };
    vec![
        stream("topic", format!("{short}{path}&maxSeconds=1"), token),
        stream("bare", format!("{quiet}{path}&maxSeconds=1"), token),
        stream("map", format!("{quiet}/v1/map/stream?maxSeconds=600"), token),
        stream("busy", format!("{narrow}{path}"), token),
        stream("refused", format!("{narrow}{path}"), ""),
        stream("refused event", format!("{narrow}{path}&refusals=event"), ""),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn libraries_show_each_event_once_and_come_back_as_the_documentation_says() {
    let tools = tokio::task::spawn_blocking(Tools::install).await.unwrap();
    let topic = unique("events");
    kafka::shared().create_topic(&topic, 1).await.unwrap();
    let testbed = Testbed::new(1).await.with("locations.stale_after_seconds", "600");
    let group = format!("{topic}-group");
    let ingest = testbed.ingest(&[
        ("ingest.routes", "locations,e"),
        ("routes.e.kind", "events"),
        ("routes.e.topic", &topic),
        ("routes.e.group", &group),
    ]);
    let mut edges = Edges::start(&testbed, &topic).await;
    ingest.wait_ready().await;
    let (_nginx, origin) = nginx(&testbed, &edges);
    let direct = edges.all().map(|(edge, _)| edge.url.clone());
    let behind_nginx = edges.all().map(|(_, path)| format!("{origin}{path}"));
    let behind_go = direct.each_ref().map(|_| format!("127.0.0.1:{}", free_port()));
    let log = testbed.folder().join("proxy.log");
    let upstreams = behind_go.iter().zip(&direct);
    let _proxies: Vec<Owned> = upstreams.map(|(listen, edge)| tools.proxy(listen, edge, &log)).collect();
    let behind_go = behind_go.map(|listen| format!("http://{listen}"));

    let (mut clients, mut others) = (Vec::new(), Vec::new());
    for (user, library) in LIBRARIES.iter().enumerate() {
        let token =
            sign(SECRET, &user.to_string(), "topics:read map:read", Duration::from_secs(3600)).unwrap();
        let urls = match library.driver {
            Driver::Chromium => &behind_nginx,
            Driver::PythonBehindGo(_) => &behind_go,
            _ => &direct,
        };
        let followed = streams(&topic, &token, urls);
        let taken = Request {
            url: followed[3].url.replace(&urls[2], &direct[2]),
            last_event_id: None,
            token: Some(token),
        };
        others.push(Source::open(&taken).await.unwrap());
        let page = format!("{origin}/follow.html");
        clients.push(Running::start(library, followed, &tools, testbed.folder(), &page));
    }
    let records = Publisher::new(testbed.brokers(), &topic).unwrap();
    let fixes = testbed.publisher();
    tokio::join!(
        all_have_each_record_once(&clients, &mut edges.short, &records),
        all_are_shown_each_move_at_once(&clients, &fixes),
        all_come_back_where_there_was_no_room(&clients, others),
        all_are_refused(&clients),
        those_stop_that_are_said_to(&clients),
    );
    for client in &clients {
        let name = client.library.name;
        client.shown(|shown| {
            let empty = shown.all_events().find(|line| data(line).is_null());
            assert_eq!(empty, None, "{name} was shown an event whose data is no JSON");
            if let Driver::Chromium = client.library.driver {
                assert_eq!(shown.openings("page").collect::<Vec<_>>(), ["h2"]);
            }
        });
    }
}
