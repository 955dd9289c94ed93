//! An id is filed once in each mailbox.

use bytes::Bytes;
use fred::prelude::*;
use tutti_e2e::redis::Redis;
use tutti_feed::{MailboxMetrics, Mailboxes, Mark, Since};

use super::{KEEP, boxes, file, file_all, filed, filing, ids, letters, log};

#[tokio::test]
async fn an_id_is_filed_once_in_a_call_in_two_and_after_its_deletion() {
    let redis = Redis::start().unwrap();
    let metrics = MailboxMetrics::default();
    let boxes = Mailboxes::new(redis.client().clone(), "once", 1, KEEP, metrics.clone());
    let twice = [filing("a", "1", "first"), filing("a", "1", "second")];
    assert_eq!(file_all(&boxes, &twice).await, filed(1, 1, 0));
    assert_eq!(file_all(&boxes, &twice).await, filed(0, 2, 0));
    let mailbox = boxes.read("a", Since::All).await.unwrap();
    assert_eq!((ids(&mailbox), mailbox.unread), (vec!["1".to_owned()], 1));
    assert_eq!(mailbox.items[0].payload, Bytes::from("first"));
    let records = log(&redis, &boxes).await;
    assert_eq!(records.len(), 1);
    assert_eq!(letters(&records[0]).len(), 1);
    assert_eq!(mailbox.position, Some(records[0].position));
    let item = &mailbox.items[0];
    assert_eq!((item.seq, item.time_us), (1, records[0].position.time_us));

    assert_eq!(boxes.mark("a", Mark::Delete, "1").await.unwrap(), Some(0));
    assert_eq!(file_all(&boxes, &twice).await, filed(0, 2, 0));
    let mailbox = boxes.read("a", Since::All).await.unwrap();
    assert_eq!((mailbox.items.len(), mailbox.unread), (0, 0));
    assert_eq!(log(&redis, &boxes).await.len(), 2, "the filing and the deletion");
    assert_eq!((metrics.filed.get(), metrics.known.get(), metrics.expired.get()), (1, 5, 0));
}

#[tokio::test]
async fn the_same_id_in_two_mailboxes_is_two_items() {
    let redis = Redis::start().unwrap();
    let boxes = boxes(&redis, KEEP);
    // Each address looks like a part of the keys of another.
    let addresses = ["a", "a:0", "a:1", "box:a", "{a}"];
    let all = addresses.map(|address| filing(address, "1", address.to_owned()));
    assert_eq!(file_all(&boxes, &all).await, filed(5, 0, 0));
    assert_eq!(boxes.mark("a", Mark::Read, "1").await.unwrap(), Some(0));
    assert_eq!(boxes.mark("a:0", Mark::Delete, "1").await.unwrap(), Some(0));
    for address in addresses {
        let mailbox = boxes.read(address, Since::All).await.unwrap();
        let payloads: Vec<Bytes> = mailbox.items.into_iter().map(|item| item.payload).collect();
        let expected = if address == "a:0" { Vec::new() } else { vec![Bytes::from(address)] };
        assert_eq!(payloads, expected);
        assert_eq!(mailbox.unread, u32::from(address != "a" && address != "a:0"), "{address}");
        assert_eq!(mailbox.marks.len(), usize::from(address == "a" || address == "a:0"), "{address}");
    }
}

#[tokio::test]
async fn an_id_that_was_deleted_and_forgotten_is_filed_as_new() {
    let redis = Redis::start().unwrap();
    let boxes = boxes(&redis, KEEP);
    file(&boxes, "a", "1", "").await;
    assert_eq!(boxes.mark("a", Mark::Delete, "1").await.unwrap(), Some(0));
    // Redis forgets the id, as after a day with many other ids.
    let key = format!("{}:ids:a:0", tutti_feed::channel(&boxes.feed(0)));
    let gone: u64 = redis.client().del(&key).await.unwrap();
    assert_eq!(gone, 1);
    file(&boxes, "a", "1", "again").await;
    let mailbox = boxes.read("a", Since::All).await.unwrap();
    assert_eq!((ids(&mailbox), mailbox.unread), (vec!["1".to_owned()], 1));
    assert!(mailbox.marks.is_empty(), "{:?}", mailbox.marks);
    assert_eq!(boxes.mark("a", Mark::Read, "1").await.unwrap(), Some(0));
    assert_eq!(boxes.mark("a", Mark::Delete, "1").await.unwrap(), Some(0));
}
