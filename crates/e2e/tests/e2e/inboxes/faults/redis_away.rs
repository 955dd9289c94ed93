//! Redis that is away, or has lost something.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;
use reqwest::Client;
use tokio::time::{Instant, sleep};
use tutti_e2e::eventually;
use tutti_e2e::inboxes::{Device, Inboxes};
use tutti_e2e::kafka;

use super::{all_live, to};

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
        // Kafka keeps the order of the records of a user.
        assert_eq!((seen.ids, seen.twice.len(), seen.resets.len()), (sent.clone(), 0, 0));
    }
    // A Redis that was killed and came back empty is filled again from Kafka.
    inboxes.testbed.redis.kill();
    inboxes.testbed.redis.run().unwrap();
    eventually("the mailbox is there again", || async { inboxes.kept("user:7").await == sent }).await;
    for device in &devices {
        eventually("devices receive a reset", || async {
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
