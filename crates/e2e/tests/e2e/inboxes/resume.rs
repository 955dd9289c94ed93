//! Devices that come back.

use serde_json::json;
use tutti_e2e::inboxes::{Device, Inboxes};
use tutti_e2e::{eventually, kafka};

use super::{has, is_live, send, urls};

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_anywhere_hears_exactly_what_it_missed_or_a_reset_beyond_what_is_kept() {
    let testbed = tutti_e2e::testbed::Testbed::on(kafka::shared(), 1).await.with("inbox.keep", "20");
    let inboxes = Inboxes::with(kafka::shared(), testbed, 1).await;
    let ingest = inboxes.ingest();
    let edges = [inboxes.edge(&[]).await, inboxes.edge(&[]).await];
    ingest.wait_ready().await;
    let all = urls(&edges);
    let first = Device::new(&all[..1], "7", "");
    is_live(&first).await;
    let mut ids = Vec::new();
    let mut next = async |count: usize| {
        for _ in 0..count {
            let key = format!("n-{}", ids.len());
            ids.push(send(&inboxes, &edges[0], &key, json!({"to": {"users": ["7"]}, "body": key})).await);
        }
        // A notification that is accepted is not filed yet.
        let newest = ids.last().cloned();
        eventually("all are filed", async || {
            let list = inboxes.list(&edges[0], "7", "?limit=1").await;
            list["notifications"][0]["id"].as_str() == newest.as_deref()
        })
        .await;
        ids.clone()
    };
    next(3).await;
    has(&first, 3).await;
    let seen = first.leave();
    let resume = |seen| Device::start(&reqwest::Client::new(), &all[1..], "7", "", seen);

    let ids = next(20).await;
    let back = resume(seen.clone());
    has(&back, 23).await;
    let back = back.leave();
    assert_eq!((back.ids.clone(), back.resets.len(), back.connected.len()), (ids, 0, 2));
    assert_eq!(back.connected[1]["unread"], 20, "the oldest three are not kept");

    let ids = next(1).await;
    let late = resume(seen);
    has(&late, 20).await;
    let late = late.leave();
    assert_eq!((late.resets.as_slice(), late.ids.as_slice()), (["too_old".to_owned()].as_slice(), &ids[4..]));

    let mut odd = back.clone();
    odd.last_id = "u.!".into();
    let odd = resume(odd);
    eventually("it is told", || async { odd.look(|seen| seen.resets == ["unknown_id"]) }).await;
    has(&odd, 20).await;
    let mut ahead = back.clone();
    ahead.last_id = format!("u.{}", tutti_feed::Cursor(vec![None]).to_text());
    let ahead = resume(ahead);
    eventually("it is told", || async { ahead.look(|seen| seen.resets == ["too_old"]) }).await;
    let oldest = Device::new(&all[..1], "7", "?since=oldest");
    has(&oldest, 20).await;
    assert_eq!(oldest.seen().ids, ids[4..]);
    assert!(oldest.seen().resets.is_empty());
}
