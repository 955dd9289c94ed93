//! How much a mailbox keeps, and for how long.

use std::collections::HashSet;
use std::time::Duration;

use fred::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tutti_e2e::eventually;
use tutti_e2e::redis::Redis;
use tutti_feed::{Filing, MailboxLimits, Mark, Since};
use tutti_model::ResetReason;

use super::{
    HOUR, ITEM_BYTES, KEEP, boxes, file, file_all, filed, filing, ids, last_news, later, letters, log, place,
};

#[tokio::test]
async fn a_mailbox_keeps_the_newest_that_fit_by_count_and_by_bytes() {
    let redis = Redis::start().unwrap();
    let boxes = boxes(&redis, MailboxLimits { items: 10, bytes: 2000, age: HOUR });
    let mut random = StdRng::seed_from_u64(7);
    let mut all: Vec<(String, usize)> = Vec::new();
    let mut read: HashSet<String> = HashSet::new();
    let (mut by_count, mut by_bytes) = (0, 0);
    let bytes = |items: &[(String, usize)]| items.iter().map(|(_, bytes)| bytes).sum::<usize>();
    for n in 0..200 {
        // Small items alternate with large ones.
        let size = if n % 40 < 20 { random.random_range(0..50) } else { random.random_range(100..500) };
        let id = format!("item-{n}");
        all.push((id.clone(), ITEM_BYTES + id.len() + size));
        file(&boxes, "a", &id, vec![7u8; size]).await;
        let mailbox = boxes.read("a", Since::All).await.unwrap();
        let cut = all.len() - mailbox.items.len();
        let kept: Vec<&str> = all[cut..].iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids(&mailbox), kept);
        assert!(kept.len() <= 10 && bytes(&all[cut..]) <= 2000, "{kept:?}");
        if cut > 0 {
            assert!(kept.len() == 10 || bytes(&all[cut - 1..]) > 2000, "one more would fit: {kept:?}");
            *(if kept.len() == 10 { &mut by_count } else { &mut by_bytes }) += 1;
        }
        let unread = |read: &HashSet<String>| kept.iter().filter(|id| !read.contains(**id)).count() as u32;
        assert_eq!(mailbox.unread, unread(&read));
        let marked: HashSet<&str> = mailbox.marks.keys().map(String::as_str).collect();
        let expected: HashSet<&str> = kept.iter().copied().filter(|id| read.contains(*id)).collect();
        assert_eq!(marked, expected, "what has left the list has no mark");
        if n % 3 == 0 {
            let middle = kept[kept.len() / 2];
            read.insert(middle.to_owned());
            assert_eq!(boxes.mark("a", Mark::Read, middle).await.unwrap(), Some(unread(&read)));
        }
    }
    assert!(by_count > 10 && by_bytes > 10, "{by_count} and {by_bytes}");

    file(&boxes, "a", "large", vec![7u8; 5000]).await;
    let mailbox = boxes.read("a", Since::All).await.unwrap();
    assert_eq!((ids(&mailbox), mailbox.unread), (vec!["large".to_owned()], 1));
    assert_eq!(mailbox.items[0].payload.len(), 5000);
    file(&boxes, "a", "small", "").await;
    let mailbox = boxes.read("a", Since::All).await.unwrap();
    assert_eq!((ids(&mailbox), mailbox.unread), (vec!["small".to_owned()], 1));
    assert!(mailbox.marks.is_empty());
}

#[tokio::test]
async fn what_has_expired_is_neither_filed_nor_kept_nor_counted() {
    let redis = Redis::start().unwrap();
    let boxes = boxes(&redis, KEEP);
    let late = Filing { expires_us: later(Duration::ZERO), ..filing("a", "late", "") };
    let never = Filing { expires_us: 0, ..late.clone() };
    assert_eq!(file_all(&boxes, &[late, never]).await, filed(0, 0, 2));
    assert_eq!(boxes.read("a", Since::All).await.unwrap().position, None, "there is no record");

    let soon = later(Duration::from_secs(4));
    let short = ["1", "2", "3"].map(|id| Filing { expires_us: soon, ..filing("a", id, "") });
    let long = Filing { expires_us: u64::MAX, ..filing("a", "long", "") };
    let all = [&short[..], &[long]].concat();
    assert_eq!(file_all(&boxes, &all).await, filed(4, 0, 0));
    let told: Vec<u32> = log(&redis, &boxes).await.iter().map(|record| letters(record)[0].unread).collect();
    assert_eq!(told, [1, 2, 3, 4]);
    assert_eq!(boxes.mark("a", Mark::Read, "2").await.unwrap(), Some(3));
    assert_eq!(boxes.mark("a", Mark::Delete, "3").await.unwrap(), Some(2));
    let before = place(&boxes).await;

    eventually("two expire", || async { boxes.read("a", Since::Now).await.unwrap().unread == 1 }).await;
    assert!(later(Duration::ZERO) >= soon, "not before they do");
    let mailbox = boxes.read("a", Since::All).await.unwrap();
    assert_eq!(ids(&mailbox), ["long"]);
    assert_eq!(mailbox.marks.keys().collect::<Vec<_>>(), ["3"], "what has expired has no mark");
    assert_eq!(mailbox.position, Some(before), "nobody is told");
    let most = later(HOUR);
    assert!(mailbox.items[0].expires_us <= most && mailbox.items[0].expires_us > most - 600_000_000);
    let place_before_all = boxes.read("a", Since::Place(None)).await.unwrap();
    assert_eq!((place_before_all.reset.map(ResetReason::as_str), ids(&place_before_all).len()), (None, 1));

    for mark in [Mark::Read, Mark::ReadTo, Mark::Delete] {
        assert_eq!(boxes.mark("a", mark, "1").await.unwrap(), None);
    }
    let again = ["1", "2", "3"].map(|id| filing("a", id, ""));
    assert_eq!(file_all(&boxes, &again).await, filed(0, 3, 0));
    file(&boxes, "a", "next", "").await;
    let (unread, _) = last_news(&log(&redis, &boxes).await, "a");
    assert_eq!(unread, 2, "of what has not expired");
    assert_eq!(boxes.mark("a", Mark::ReadTo, "next").await.unwrap(), Some(0));
}

#[tokio::test]
async fn nothing_is_kept_for_longer_than_a_mailbox_keeps() {
    let redis = Redis::start().unwrap();
    let boxes = boxes(&redis, MailboxLimits { age: Duration::from_secs(1), ..KEEP });
    file(&boxes, "a", "1", "").await; // for an hour, it says
    eventually("it is too old", || async {
        let mailbox = boxes.read("a", Since::All).await.unwrap();
        mailbox.items.is_empty() && mailbox.unread == 0
    })
    .await;
    let outcome = file_all(&boxes, &[filing("a", "1", "")]).await;
    assert_eq!(outcome, filed(0, 1, 0), "the id is known for a day");
    let keys: Vec<String> = redis.command(&["KEYS", "*:a*"]).await.unwrap();
    assert!(keys.len() >= 2, "{keys:?}");
    for key in keys {
        let seconds: i64 = redis.client().ttl(&key).await.unwrap();
        assert!(seconds > 86_400 && seconds <= 2 * 86_400 + 1, "{key} lives on for {seconds} s");
    }
}
