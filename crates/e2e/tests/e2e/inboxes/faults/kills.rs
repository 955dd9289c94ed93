//! Edges, replicas and ingests that are killed or restarted while many devices listen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::iter;
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use reqwest::Client;
use serde_json::json;
use tokio::time::sleep;
use tutti_e2e::eventually;
use tutti_e2e::inboxes::{Device, Inboxes, Seen};
use tutti_e2e::kafka;
use tutti_e2e::testbed::UNLIMITED;
use tutti_load::now_ms;

use super::rotated;

/// The ids of the notifications that were sent to each user.
type Sent = BTreeMap<String, BTreeSet<String>>;

/// Sends calls to some users each, many at the same time. Each is sent until it is accepted.
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

/// Waits until each mailbox has exactly what was sent, and each device has the content of its user's mailbox, in
/// order and once.
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

    // There are 10,000 calls to five users each.
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
