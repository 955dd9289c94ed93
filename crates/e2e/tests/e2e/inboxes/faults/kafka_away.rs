//! Kafka that is away, or has lost something.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use tutti_e2e::eventually;
use tutti_e2e::inboxes::{Device, Inboxes};
use tutti_e2e::kafka::{self, Kafka};

use super::{all_live, rotated, to};

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
        // An impatient sender calls both replicas at once.
        let body = to("7", "during");
        let (a, b) =
            tokio::join!(inboxes.send(&urls[0], "during", &body), inboxes.send(&urls[1], "during", &body),);
        for answer in [a.unwrap(), b.unwrap()] {
            assert_eq!(answer.status, 503, "{}", answer.body);
            assert!(answer.retry_after.is_some_and(|after| after.parse::<u32>().is_ok()));
            // If a replica answers too late for the edge, the edge reports a replica that does not answer.
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
async fn where_kafka_has_lost_something_each_device_begins_again_once_however_much_is_kept() {
    let inboxes = Inboxes::start(kafka::shared(), 1).await;
    let ingest = inboxes.ingest();
    let edge = inboxes.edge(&[]).await;
    ingest.wait_ready().await;
    let urls = [edge.url.clone()];
    let here = Device::new(&urls, "7", "?topics=news");
    all_live(std::slice::from_ref(&here)).await;
    // More records than are read at once.
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
    let newcomer = Device::new(&urls, "7", "?since=oldest");
    eventually("who asks for all gets it", || async { newcomer.look(|seen| seen.ids.len() == 100) }).await;
    let after = inboxes.send_until_accepted(&urls, "after", &to("7", "after")).await;
    let kept = inboxes.kept("user:7").await;
    for device in [&here, &newcomer] {
        eventually("and what comes then", || async { device.look(|seen| seen.ids.contains(&after)) }).await;
        let seen = device.seen();
        assert_eq!((seen.twice.len(), seen.ids.len()), (0, 101));
        assert_eq!(seen.ids[..100], kept[..100]);
    }
    // There is at most one reset for each feed that the device follows.
    let resets = here.seen().resets;
    assert!(resets.len() <= 2 && resets.iter().all(|reason| reason == "gap"), "{resets:?}");
    assert_eq!(newcomer.seen().resets, Vec::<String>::new());
}
