//! Inboxes while processes die, and while Kafka or Redis is away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::iter;
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tutti_e2e::eventually;
use tutti_e2e::inboxes::{Device, Inboxes, Seen, token};
use tutti_e2e::kafka::{self, Kafka};
use tutti_e2e::service::Service;
use tutti_e2e::testbed::Edge;
use tutti_e2e::testbed::UNLIMITED;
use tutti_load::now_ms;

fn to(user: &str, text: &str) -> Value {
    json!({ "to": { "users": [user] }, "body": text, "data": { "at": now_ms() } })
}

fn rotated(urls: &[String], by: usize) -> Vec<String> {
    let mut urls = urls.to_vec();
    let by = by % urls.len();
    urls.rotate_left(by);
    urls
}

async fn all_live(devices: &[Device]) {
    eventually("all devices are live", || async {
        devices
            .iter()
            .all(|device| device.look(|seen| !seen.connected.is_empty() && !seen.last_id.is_empty()))
    })
    .await;
}

/// Which notifications each user was sent.
type Sent = BTreeMap<String, BTreeSet<String>>;

/// Sends calls to some users each, many at the same time, until each is accepted.
async fn send_all(inboxes: &Inboxes, edges: &[String], calls: Vec<Vec<String>>, pause: Duration) -> Sent {
    let sending = iter(calls.into_iter().enumerate()).map(async |(n, users)| {
        sleep(pause).await;
        let body = json!({ "to": { "users": users }, "title": format!("n-{n}"), "data": { "at": now_ms() } });
        let id = inboxes.send_until_accepted(&rotated(edges, n), &format!("key-{n}"), &body).await;
        (id, users)
    });
    let done: Vec<_> = sending.buffer_unordered(32).collect().await;
    let mut sent = Sent::new();
    for (id, users) in done {
        for user in users {
            assert!(sent.entry(user).or_default().insert(id.clone()), "ids differ");
        }
    }
    sent
}

/// Each device has what its user's mailbox holds, in its order, once; and the mailbox what was sent.
async fn all_is_there(inboxes: &Inboxes, devices: &[(String, Device)], sent: &Sent) {
    for (user, ids) in sent {
        let address = format!("user:{user}");
        eventually("the mailbox holds what was sent", || async {
            inboxes.kept(&address).await.len() >= ids.len()
        })
        .await;
        let kept = inboxes.kept(&address).await;
        assert_eq!(&kept.iter().cloned().collect::<BTreeSet<_>>(), ids, "{user}");
        assert_eq!(kept.len(), ids.len(), "{user}");
        for (_, device) in devices.iter().filter(|(of, _)| of == user) {
            eventually("the device has as many", || async {
                device.look(|seen| seen.ids.len() >= kept.len())
            })
            .await;
            device.look(|seen| {
                assert_eq!(seen.ids, kept, "{user}: {:?}", seen.resets);
                assert_eq!((seen.twice.len(), seen.resets.len()), (0, 0), "{user}: {:?}", seen.resets);
            });
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_thousand_devices_get_fifty_thousand_notifications_once_and_in_order_while_all_is_killed() {
    tutti_service::raise_file_limit();
    let mut inboxes = Inboxes::start(kafka::shared(), 2).await;
    let mut ingests = [inboxes.ingest(), inboxes.ingest()];
    let edge = async || inboxes.edge(&UNLIMITED).await;
    let mut edges = [edge().await, edge().await, edge().await];
    for ingest in &ingests {
        ingest.wait_ready().await;
    }
    let urls: Vec<String> = edges.iter().map(|edge| edge.url.clone()).collect();
    let client = Client::new();
    let user = |n: usize| format!("u-{}", n % 2000);
    let devices: Vec<(String, Device)> = (0..3000)
        .map(|n| (user(n), Device::start(&client, &rotated(&urls, n), &user(n), "", Seen::default())))
        .collect();
    eventually("all devices are live", || async {
        devices.iter().all(|(_, device)| device.look(|seen| !seen.last_id.is_empty()))
    })
    .await;

    // 10,000 calls to five users each.
    let mut rng = StdRng::seed_from_u64(7);
    let calls = (0..10_000)
        .map(|_| {
            let mut users = BTreeSet::new();
            while users.len() < 5 {
                users.insert(user(rng.random_range(0..2000)));
            }
            users.into_iter().collect()
        })
        .collect();
    let (done, kills) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut replicas = std::mem::take(&mut inboxes.replicas);
    let killing = async {
        while !done.load(Ordering::Relaxed) {
            let n = kills.fetch_add(1, Ordering::Relaxed);
            let (edge, ingest, replica) =
                (&mut edges[n % 3].service, &mut ingests[n / 2 % 2], &mut replicas[n % 2]);
            edge.kill();
            replica.kill();
            if n % 2 == 0 {
                ingest.kill();
            }
            sleep(Duration::from_millis(500)).await; // so long they are gone
            edge.run();
            replica.run();
            if n % 2 == 0 {
                ingest.run();
            }
            let _: i64 = inboxes.testbed.redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await.unwrap();
            sleep(Duration::from_millis(2500)).await; // so long they live
        }
    };
    let sending = async {
        let sent = send_all(&inboxes, &urls, calls, Duration::from_millis(20)).await;
        done.store(true, Ordering::Relaxed);
        sent
    };
    let (sent, ()) = tokio::join!(sending, killing);
    assert!(kills.load(Ordering::Relaxed) >= 3, "it was too short to show anything");
    assert_eq!(sent.values().map(BTreeSet::len).sum::<usize>(), 50_000);
    all_is_there(&inboxes, &devices, &sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_all_edges_keeps_no_device_waiting() {
    let inboxes = Inboxes::start(kafka::shared(), 1).await;
    let ingest = inboxes.ingest();
    let drain = [("streams.drain_seconds", "2")];
    let mut edges = [inboxes.edge(&drain).await, inboxes.edge(&drain).await, inboxes.edge(&drain).await];
    ingest.wait_ready().await;
    let urls: Vec<String> = edges.iter().map(|edge| edge.url.clone()).collect();
    let client = Client::new();
    let devices: Vec<(String, Device)> = (0..300)
        .map(|n| {
            let user = format!("u-{}", n % 200);
            let device = Device::start(&client, &rotated(&urls, n), &user, "", Seen::default());
            (user, device)
        })
        .collect();
    eventually("all devices are live", || async {
        devices.iter().all(|(_, device)| device.look(|seen| !seen.last_id.is_empty()))
    })
    .await;
    let calls = (0..4000).map(|n| vec![format!("u-{}", n % 200), format!("u-{}", (n + 71) % 200)]).collect();
    let restarting = async {
        for edge in &mut edges {
            edge.service.signal(Signal::SIGTERM);
            eventually("it has ended", || async { !edge.service.is_running() }).await;
            edge.service.run();
            edge.service.wait_ready().await;
        }
    };
    let (sent, ()) = tokio::join!(send_all(&inboxes, &urls, calls, Duration::from_millis(60)), restarting);
    all_is_there(&inboxes, &devices, &sent).await;
    for (user, device) in &devices {
        let (slowest, resets) = device.look(|seen| (seen.slowest_ms, seen.resets.len()));
        assert!(slowest <= 5000, "{user} waited {slowest} ms for a notification");
        assert_eq!(resets, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_kafka_is_away_senders_hear_so_and_who_tries_again_sends_once() {
    let kafka = Kafka::start().unwrap();
    let inboxes = Inboxes::start(&kafka, 2).await;
    let ingest = inboxes.ingest();
    let edges = [inboxes.edge(&[]).await, inboxes.edge(&[]).await];
    ingest.wait_ready().await;
    let urls: Vec<String> = edges.iter().map(|edge| edge.url.clone()).collect();
    let device = Device::new(&urls, "7", "");
    all_live(std::slice::from_ref(&device)).await;
    let before = inboxes.send_until_accepted(&urls, "before", &to("7", "before")).await;

    kafka.kill();
    let until = Instant::now() + Duration::from_secs(20);
    let mut refused = 0;
    while Instant::now() < until {
        // At once, on both replicas, as an impatient sender does.
        let body = to("7", "during");
        let (a, b) =
            tokio::join!(inboxes.send(&urls[0], "during", &body), inboxes.send(&urls[1], "during", &body),);
        for answer in [a.unwrap(), b.unwrap()] {
            assert_eq!(answer.status, 503, "{}", answer.body);
            assert!(answer.retry_after.is_some_and(|after| after.parse::<u32>().is_ok()));
            // A replica that says so too late for the edge is one that does not answer.
            refused += u32::from(answer.body["detail"].as_str().unwrap().contains("Kafka"));
        }
    }
    assert!(refused >= 4, "{refused} heard why");
    kafka.run().unwrap();
    let during = inboxes.send_until_accepted(&urls, "during", &to("7", "during")).await;
    let again = inboxes.send_until_accepted(&rotated(&urls, 1), "during", &to("7", "during")).await;
    assert_eq!(again, during);
    let after = inboxes.send_until_accepted(&urls, "after", &to("7", "after")).await;
    eventually("the last has come", || async { device.look(|seen| seen.ids.contains(&after)) }).await;
    let seen = device.seen();
    assert_eq!((seen.ids.len(), seen.twice.len()), (3, 0), "{:?}", seen.ids);
    assert_eq!(seen.ids.iter().collect::<BTreeSet<_>>(), [&before, &during, &after].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_what_was_accepted_waits() {
    let mut inboxes = Inboxes::start(kafka::shared(), 1).await;
    let ingest = inboxes.ingest();
    let edge = inboxes.edge(&[]).await;
    ingest.wait_ready().await;
    let urls = [edge.url.clone()];
    let devices = [Device::new(&urls, "7", ""), Device::new(&urls, "7", "")];
    all_live(&devices).await;
    let mut sent = vec![inboxes.send_until_accepted(&urls, "before", &to("7", "before")).await];
    eventually("it has come", || async { devices[0].look(|seen| seen.ids.len() == 1) }).await;
    inboxes.testbed.redis.signal(Signal::SIGSTOP);
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        let key = format!("during-{}", sent.len());
        let answer = inboxes.send(&edge.url, &key, &to("7", &key)).await.unwrap();
        assert_eq!(answer.status, 202, "{}", answer.body);
        sent.push(answer.body["id"].as_str().unwrap().to_owned());
        sleep(Duration::from_millis(50)).await;
    }
    inboxes.testbed.redis.signal(Signal::SIGCONT);
    for device in &devices {
        eventually("all have come", || async { device.look(|seen| seen.ids.len() >= sent.len()) }).await;
        let seen = device.seen();
        // Kafka keeps the order of a user's records.
        assert_eq!((seen.ids, seen.twice.len(), seen.resets.len()), (sent.clone(), 0, 0));
    }
    // Killed and empty, it is filled again from Kafka.
    inboxes.testbed.redis.kill();
    inboxes.testbed.redis.run().unwrap();
    eventually("the mailbox is there again", || async { inboxes.kept("user:7").await == sent }).await;
    for device in &devices {
        eventually("devices are told to begin anew", || async {
            device.look(|seen| {
                !seen.resets.is_empty() && seen.ids.iter().collect::<BTreeSet<_>>() == sent.iter().collect()
            })
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_lost_its_last_writes_makes_no_device_miss_any() {
    let mut inboxes = Inboxes::start(kafka::shared(), 1).await;
    let ingest = inboxes.ingest();
    let edges = [inboxes.edge(&[]).await, inboxes.edge(&[]).await];
    ingest.wait_ready().await;
    let urls: Vec<String> = edges.iter().map(|edge| edge.url.clone()).collect();
    let stays = Device::new(&urls[..1], "7", "");
    let moves = Device::new(&urls[..1], "7", "");
    for device in [&stays, &moves] {
        all_live(std::slice::from_ref(device)).await;
    }
    let mut sent = Vec::new();
    let mut send = async |count: usize| {
        for _ in 0..count {
            let key = format!("n-{}", sent.len());
            sent.push(inboxes.send_until_accepted(&urls, &key, &to("7", &key)).await);
        }
        sent.clone()
    };
    send(10).await;
    eventually("they have come", || async { stays.look(|seen| seen.ids.len() == 10) }).await;
    inboxes.testbed.redis.save().await.unwrap();
    let before = send(10).await;
    for device in [&stays, &moves] {
        eventually("they have come", || async { device.look(|seen| seen.ids.len() == 20) }).await;
    }
    let away = moves.leave();
    inboxes.testbed.redis.kill();
    inboxes.testbed.redis.run().unwrap();
    assert!(inboxes.kept("user:7").await.len() < 20 || before.len() == 20);
    let mut sent = before;
    for n in 20..30 {
        let key = format!("n-{n}");
        sent.push(inboxes.send_until_accepted(&urls, &key, &to("7", &key)).await);
    }
    let back = Device::start(&Client::new(), &urls[1..], "7", "", away);
    for device in [&stays, &back] {
        eventually("each has all, the lost ones too", || async {
            device.look(|seen| seen.ids.iter().collect::<BTreeSet<_>>() == sent.iter().collect())
        })
        .await;
    }
    eventually("and so has the mailbox", || async {
        inboxes.kept("user:7").await.iter().collect::<BTreeSet<_>>() == sent.iter().collect()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_kafka_has_lost_something_each_device_begins_again_once_however_much_is_kept() {
    let inboxes = Inboxes::start(kafka::shared(), 1).await;
    let ingest = inboxes.ingest();
    let edge = inboxes.edge(&[]).await;
    ingest.wait_ready().await;
    let urls = [edge.url.clone()];
    let here = Device::new(&urls, "7", "?topics=news");
    all_live(std::slice::from_ref(&here)).await;
    // More than is read at once.
    let filler = "x".repeat(2000);
    for n in 0..100 {
        let body = json!({ "to": { "users": ["7"] }, "title": format!("t-{n}"), "body": filler });
        inboxes.send_until_accepted(&urls, &format!("k-{n}"), &body).await;
    }
    eventually("all have come", || async { here.look(|seen| seen.ids.len() == 100) }).await;
    let mailboxes = inboxes.mailboxes();
    for bucket in 0..mailboxes.buckets() {
        mailboxes.announce_gap(bucket, "kafka_retention").await.unwrap();
    }
    eventually("it is told, and all again", || async {
        here.look(|seen| !seen.resets.is_empty() && seen.ids.len() == 100)
    })
    .await;
    let anew = Device::new(&urls, "7", "?since=oldest");
    eventually("who asks for all gets it", || async { anew.look(|seen| seen.ids.len() == 100) }).await;
    let after = inboxes.send_until_accepted(&urls, "after", &to("7", "after")).await;
    let kept = inboxes.kept("user:7").await;
    for device in [&here, &anew] {
        eventually("and what comes then", || async { device.look(|seen| seen.ids.contains(&after)) }).await;
        let seen = device.seen();
        assert_eq!((seen.twice.len(), seen.ids.len()), (0, 101));
        assert_eq!(seen.ids[..100], kept[..100]);
    }
    // One for each feed that it follows, at most.
    let resets = here.seen().resets;
    assert!(resets.len() <= 2 && resets.iter().all(|reason| reason == "gap"), "{resets:?}");
    assert_eq!(anew.seen().resets, Vec::<String>::new());
}

/// A device whose reading is in the test's hands.
struct Slow {
    socket: TcpStream,
    text: String,
}

impl Slow {
    async fn open(edge: &Edge, user: &str) -> Self {
        let address = edge.url.strip_prefix("http://").unwrap();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        // A small window: the server's side fills soon.
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address.parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut socket = TcpStream::from_std(socket.into()).unwrap();
        let request = format!(
            "GET /v1/inbox/stream HTTP/1.0\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\r\n",
            token(user)
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut slow = Self { socket, text: String::new() };
        slow.read_until("event: connected").await;
        slow.read_until("\nid: ").await;
        slow
    }

    async fn read_until(&mut self, word: &str) {
        let mut bytes = [0; 4096];
        while !self.text.contains(word) {
            let n = self.socket.read(&mut bytes).await.unwrap();
            assert!(n > 0, "the stream ended");
            self.text.push_str(&String::from_utf8_lossy(&bytes[..n]));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_reads_nothing_for_long_misses_nothing_that_is_kept_and_holds_up_nobody() {
    let inboxes = Inboxes::start(kafka::shared(), 1).await;
    let ingest = inboxes.ingest();
    let edge = inboxes.edge(&[("http.workers", "1")]).await;
    ingest.wait_ready().await;
    let urls = [edge.url.clone()];
    let other = Device::new(&urls, "7", "");
    all_live(std::slice::from_ref(&other)).await;
    let mut slow = Slow::open(&edge, "7").await;
    // More than kernels hold for it; 2 KB each, so that count is what limits the mailbox.
    let filler = "x".repeat(1000);
    let calls: Vec<usize> = (0..700).collect();
    for part in calls.chunks(20) {
        let sending = part.iter().map(async |n| {
            let body = json!({ "to": { "users": ["7"] }, "title": format!("t-{n}-t"), "body": filler });
            inboxes.send_until_accepted(&urls, &format!("k-{n}"), &body).await
        });
        iter(sending).buffer_unordered(20).collect::<Vec<_>>().await;
        let sent = part[part.len() - 1] + 1;
        eventually("the other has all", || async { other.look(|seen| seen.ids.len() == sent) }).await;
    }
    other.look(|seen| assert_eq!((seen.twice.len(), seen.resets.len()), (0, 0)));
    eventually("the slow one has fallen behind", || async {
        edge.service.metric("tutti_edge_fell_behind_total").await >= 1.0
    })
    .await;
    let last = other.look(|seen| seen.data[&seen.ids[699]]["title"].as_str().unwrap().to_owned());
    tokio::time::timeout(Duration::from_secs(60), slow.read_until(&last)).await.expect("it is told the rest");
    let told = slow.text.as_str();
    let kept = inboxes.kept("user:7").await;
    assert!(
        kept.len() == 200 && told.contains("event: reset\ndata: {\"reason\":\"too_old\"}"),
        "{}",
        kept.len()
    );
    let after = &told[told.rfind("event: reset").unwrap()..];
    let mut from = 0;
    for id in &kept {
        let at = after[from..].find(&format!("\"id\":\"{id}\"")).expect("all that is kept, in order");
        from += at;
        assert_eq!(after.matches(&format!("\"id\":\"{id}\"")).count(), 1, "once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_followers_of_a_topic_get_each_notification_once_from_one_encoding() {
    tutti_service::raise_file_limit();
    let inboxes = Inboxes::start(kafka::shared(), 1).await;
    let ingest: Service = inboxes.ingest();
    let edges = [inboxes.edge(&UNLIMITED).await, inboxes.edge(&UNLIMITED).await];
    ingest.wait_ready().await;
    let heard = Arc::new(AtomicUsize::new(0));
    let live = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..10_000 {
        let address = edges[n % 2].url.strip_prefix("http://").unwrap().to_owned();
        let (heard, live) = (heard.clone(), live.clone());
        let token = token(&format!("u-{n}"));
        tasks.spawn(async move {
            let mut socket = loop {
                match TcpStream::connect(&address).await {
                    Ok(socket) => break socket,
                    Err(_) => sleep(Duration::from_millis(100)).await,
                }
            };
            let request = format!(
                "GET /v1/inbox/stream?topics=news HTTP/1.0\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n"
            );
            socket.write_all(request.as_bytes()).await.unwrap();
            let (mut text, mut bytes, mut greeted) = (String::new(), [0; 1024], false);
            let mut count = 0;
            loop {
                let n = socket.read(&mut bytes).await.unwrap_or(0);
                assert!(n > 0, "the stream ended");
                text.push_str(&String::from_utf8_lossy(&bytes[..n]));
                if !greeted && text.contains("event: connected") && text.contains("\nid: u.") {
                    greeted = true;
                    live.fetch_add(1, Ordering::Relaxed);
                }
                let now = text.matches("event: notification").count();
                assert!(now <= 3, "once each: {text}");
                heard.fetch_add(now - count, Ordering::Relaxed);
                count = now;
            }
        });
    }
    eventually("all are live", || async { live.load(Ordering::Relaxed) == 10_000 }).await;
    eventually("and wait for nothing", || async {
        edges[0].service.metric("tutti_edge_streams_behind").await == 0.0
            && edges[1].service.metric("tutti_edge_streams_behind").await == 0.0
    })
    .await;
    for n in 0..3 {
        let body = json!({ "to": { "topic": "news" }, "title": format!("news {n}") });
        let url = std::slice::from_ref(&edges[n % 2].url);
        inboxes.send_until_accepted(url, &format!("k-{n}"), &body).await;
    }
    eventually("all have heard all", || async { heard.load(Ordering::Relaxed) == 30_000 }).await;
    assert!(tasks.try_join_next().is_none(), "none has ended or heard one twice");
    for edge in &edges {
        assert_eq!(edge.service.metric("tutti_edge_letters_encoded_total").await, 3.0, "once for all");
    }
}
