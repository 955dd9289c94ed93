//! Keys of a mailbox that Redis has lost.

use std::time::Duration;

use fred::prelude::*;
use tutti_e2e::eventually;
use tutti_e2e::redis::Redis;
use tutti_feed::{Filing, MailboxLimits, Mark, Position, Since};

use super::{KEEP, boxes, file, file_all, filed, filing, ids, last_news, later, log, place};

/// The key of a list lives on from the first filing of the day, and that of the counts from the last.
#[tokio::test]
async fn when_a_list_has_gone_with_its_key_nothing_of_it_is_counted() {
    let redis = Redis::start().unwrap();
    let boxes = boxes(&redis, MailboxLimits { age: Duration::from_secs(1), ..KEEP });
    file(&boxes, "a", "1", "").await;
    tokio::time::sleep(Duration::from_millis(1100)).await; // it has to be too old
    let key = format!("{}:box:a", tutti_feed::channel(&boxes.feed(0)));
    let gone: u64 = redis.client().del(&key).await.unwrap();
    assert_eq!(gone, 1);
    assert_eq!(boxes.read("a", Since::All).await.unwrap().unread, 0);
    file(&boxes, "a", "2", "").await;
    assert_eq!(last_news(&log(&redis, &boxes).await, "a").0, 1);
}

#[tokio::test]
async fn a_list_that_redis_has_lost_is_a_reset_and_one_that_is_empty_is_not() {
    let redis = Redis::start().unwrap();
    let boxes = boxes(&redis, MailboxLimits { items: 3, ..KEEP });
    let box_key =
        |kind: &str, address: &str| format!("{}:{kind}:{address}", tutti_feed::channel(&boxes.feed(0)));
    let reset = async |address: &str, place: Position| {
        let mailbox = boxes.read(address, Since::Place(Some(place))).await.unwrap();
        (mailbox.reset.map(|reason| reason.as_str().to_owned()), mailbox.lost_us.is_some())
    };
    // Mailboxes become empty in regular ways: by deletion, by expiry, and by trimming.
    let begun = file(&boxes, "deleted", "1", "").await;
    boxes.mark("deleted", Mark::Delete, "1").await.unwrap();
    let expires = Filing { expires_us: later(Duration::from_millis(300)), ..filing("expired", "1", "") };
    assert_eq!(file_all(&boxes, &[expires]).await, filed(1, 0, 0));
    for n in 0..5 {
        file(&boxes, "cut", &n.to_string(), "").await;
    }
    let before = place(&boxes).await;
    eventually("it has expired", async || boxes.read("expired", Since::All).await.unwrap().items.is_empty())
        .await;
    for address in ["deleted", "expired", "nobody"] {
        for from in [begun, before] {
            assert_eq!(reset(address, from).await, (None, false), "{address}");
        }
    }
    assert_eq!(reset("cut", before).await, (None, false));
    assert_eq!(
        file_all(&boxes, &[filing("deleted", "2", ""), filing("expired", "2", "")]).await,
        filed(2, 0, 0)
    );
    assert_eq!(reset("deleted", begun).await, (None, false));
    assert_eq!(reset("expired", begun).await, (None, false));

    // Redis loses the list of one mailbox, the counts of another, and the list of a third that gets something new.
    let shown = file(&boxes, "list", "1", "").await;
    for address in ["count", "renewed"] {
        file(&boxes, address, "1", "").await;
        file(&boxes, address, "2", "").await;
    }
    let last = place(&boxes).await;
    for key in [box_key("box", "list"), box_key("state", "count"), box_key("box", "renewed")] {
        assert_eq!(redis.client().del::<u64, _>(key).await.unwrap(), 1);
    }
    assert_eq!(file_all(&boxes, &[filing("renewed", "3", "")]).await, filed(1, 0, 0));
    for (address, left) in [("list", vec![]), ("count", vec!["1", "2"]), ("renewed", vec!["3"])] {
        for _ in 0..2 {
            assert_eq!(reset(address, shown).await, (Some("too_old".to_owned()), true), "{address}");
        }
        let mailbox = boxes.read(address, Since::All).await.unwrap();
        assert!(mailbox.lost_us.is_some(), "no list is empty without a word");
        assert_eq!(
            (ids(&mailbox), mailbox.unread as usize),
            (left.iter().map(|id| (*id).to_owned()).collect(), left.len())
        );
        assert_eq!(
            reset(address, mailbox.position.unwrap()).await.0,
            None,
            "a device that has read the mailbox again goes on"
        );
    }
    assert_eq!(reset("renewed", last).await.0, None, "who was shown all before it has missed nothing");
}

#[tokio::test]
async fn what_is_filed_beside_expired_items_whose_count_is_lost_stays() {
    let redis = Redis::start().unwrap();
    let boxes = boxes(&redis, MailboxLimits { items: 5, ..KEEP });
    let soon = later(Duration::from_secs(2));
    let short = ["1", "2", "3", "4", "5"].map(|id| Filing { expires_us: soon, ..filing("a", id, "") });
    assert_eq!(file_all(&boxes, &short).await, filed(5, 0, 0));
    let state = format!("{}:state:a", tutti_feed::channel(&boxes.feed(0)));
    assert_eq!(redis.client().del::<u64, _>(state).await.unwrap(), 1);
    eventually("they expire", async || later(Duration::ZERO) > soon).await;
    assert_eq!(file_all(&boxes, &[filing("a", "new", "")]).await, filed(1, 0, 0));
    let mailbox = boxes.read("a", Since::All).await.unwrap();
    assert_eq!((ids(&mailbox), mailbox.unread), (vec!["new".to_owned()], 1));
}
