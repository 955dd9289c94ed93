//! Items that are marked as read or deleted.

use bytes::Bytes;
use fred::prelude::*;
use tutti_e2e::redis::Redis;
use tutti_feed::{MailboxChange, MailboxLimits, Mark, Since};
use tutti_model::ResetReason;

use super::{KEEP, boxes, file, ids, last_news, log, place};

#[tokio::test]
async fn marks_count_are_told_once_and_reach_who_was_away() {
    let redis = Redis::start().unwrap();
    let boxes = boxes(&redis, KEEP);
    let mut places = Vec::new();
    for id in ["1", "2", "3", "4", "5"] {
        places.push(file(&boxes, "a", id, "").await);
    }
    let own = |ids: &[&'static str]| ids.iter().map(|id| Bytes::from(*id)).collect::<Vec<_>>();

    assert_eq!(boxes.mark("a", Mark::Read, "2").await.unwrap(), Some(4));
    let read = place(&boxes).await;
    assert_eq!(read.seq, 6);
    assert_eq!(last_news(&log(&redis, &boxes).await, "a"), (4, MailboxChange::Read(own(&["2"]))));
    // A mark that changes nothing makes no record.
    assert_eq!(boxes.mark("a", Mark::Read, "2").await.unwrap(), Some(4));
    for mark in [Mark::Read, Mark::ReadTo, Mark::Delete] {
        assert_eq!(boxes.mark("a", mark, "6").await.unwrap(), None);
        assert_eq!(boxes.mark("b", mark, "1").await.unwrap(), None);
    }
    assert_eq!(place(&boxes).await, read);

    assert_eq!(boxes.mark("a", Mark::ReadTo, "3").await.unwrap(), Some(2));
    let read_to = place(&boxes).await;
    assert_eq!(read_to.seq, 7);
    assert_eq!(last_news(&log(&redis, &boxes).await, "a"), (2, MailboxChange::Read(own(&["1", "3"]))));
    assert_eq!(boxes.mark("a", Mark::ReadTo, "3").await.unwrap(), Some(2));
    assert_eq!(boxes.mark("a", Mark::ReadTo, "1").await.unwrap(), Some(2));
    assert_eq!(place(&boxes).await, read_to);

    // One of these was read, and one was not.
    assert_eq!(boxes.mark("a", Mark::Delete, "2").await.unwrap(), Some(2));
    let deleted = place(&boxes).await;
    assert_eq!(last_news(&log(&redis, &boxes).await, "a"), (2, MailboxChange::Deleted(own(&["2"]))));
    assert_eq!(boxes.mark("a", Mark::Delete, "4").await.unwrap(), Some(1));
    assert_eq!(last_news(&log(&redis, &boxes).await, "a"), (1, MailboxChange::Deleted(own(&["4"]))));
    let last = place(&boxes).await;
    for mark in [Mark::Read, Mark::ReadTo, Mark::Delete] {
        assert_eq!(boxes.mark("a", mark, "4").await.unwrap(), None, "it is not there any more");
    }
    assert_eq!(place(&boxes).await, last);

    // A reader that comes back from a position hears what was marked since.
    for (place, expected) in [
        (places[3], vec!["1 read", "2 deleted", "3 read", "4 deleted"]),
        (read, vec!["1 read", "2 deleted", "3 read", "4 deleted"]),
        (read_to, vec!["2 deleted", "4 deleted"]),
        (deleted, vec!["4 deleted"]),
        (last, vec![]),
    ] {
        let mailbox = boxes.read("a", Since::Place(Some(place))).await.unwrap();
        assert_eq!((mailbox.reset.map(ResetReason::as_str), mailbox.unread), (None, 1));
        let items = if place == places[3] { vec!["5"] } else { vec![] };
        assert_eq!(ids(&mailbox), items);
        let mut marks: Vec<String> = mailbox
            .marks
            .iter()
            .filter(|(_, mark)| mark.is_later_than(Some(place)))
            .map(|(id, mark)| format!("{id} {}", if mark.deleted { "deleted" } else { "read" }))
            .collect();
        marks.sort();
        assert_eq!(marks, expected);
    }
    let mailbox = boxes.read("a", Since::All).await.unwrap();
    assert_eq!((ids(&mailbox), mailbox.reset), (vec!["1".to_owned(), "3".to_owned(), "5".to_owned()], None));
    let mark = mailbox.marks["2"];
    assert_eq!((mark.deleted, mark.seq, mark.time_us), (true, deleted.seq, deleted.time_us));
}

#[tokio::test]
async fn who_missed_that_an_item_was_read_before_it_was_cut_is_told_to_begin_anew() {
    let redis = Redis::start().unwrap();
    let boxes = boxes(&redis, MailboxLimits { items: 2, ..KEEP });
    file(&boxes, "a", "1", "").await;
    let unread = file(&boxes, "a", "2", "").await;
    assert_eq!(boxes.mark("a", Mark::Read, "1").await.unwrap(), Some(1));
    let read = place(&boxes).await;
    file(&boxes, "a", "3", "").await; // which cuts off the first, and its mark
    let mailbox = boxes.read("a", Since::Place(Some(unread))).await.unwrap();
    assert_eq!((mailbox.reset.map(ResetReason::as_str), ids(&mailbox).len()), (Some("too_old"), 2));
    let mailbox = boxes.read("a", Since::Place(Some(read))).await.unwrap();
    assert_eq!((mailbox.reset.map(ResetReason::as_str), ids(&mailbox)), (None, vec!["3".to_owned()]));
}

#[tokio::test]
async fn many_deletions_are_remembered_up_to_a_bound_and_never_missed_in_silence() {
    let redis = Redis::start().unwrap();
    let boxes = boxes(&redis, MailboxLimits { items: 4, ..KEEP });
    let bound = 2 * 4 + 64;
    file(&boxes, "a", "stays", "").await;
    boxes.mark("a", Mark::Read, "stays").await.unwrap();
    let mut places = vec![place(&boxes).await];
    let key = format!("{}:marks:a", tutti_feed::channel(&boxes.feed(0)));
    let (mut most, mut least) = (0, u64::MAX);
    for n in 0..300 {
        file(&boxes, "a", &format!("{n}"), "").await;
        assert_eq!(boxes.mark("a", Mark::Delete, &format!("{n}")).await.unwrap(), Some(0));
        places.push(place(&boxes).await);
        let marks: u64 = redis.client().hlen(&key).await.unwrap();
        most = most.max(marks);
        if n > 100 {
            least = least.min(marks);
        }
    }
    assert!(most <= bound && most > bound / 2, "{most} marks");
    assert!(least >= 32, "{least} marks: not all are dropped at once");

    let mut resets = 0;
    for (n, place) in places.iter().enumerate() {
        let mailbox = boxes.read("a", Since::Place(Some(*place))).await.unwrap();
        if mailbox.reset.is_some() {
            assert_eq!(mailbox.reset.map(ResetReason::as_str), Some("too_old"));
            assert_eq!(ids(&mailbox), ["stays"]);
            assert!(!mailbox.marks["stays"].deleted, "what was read stays so");
            resets += 1;
            assert_eq!(resets, n + 1, "only the oldest places are too old");
        } else {
            assert_eq!(ids(&mailbox), Vec::<String>::new());
            for missed in n..300 {
                let mark = mailbox.marks[&format!("{missed}")];
                assert!(mark.deleted && mark.is_later_than(Some(*place)), "{missed} from {n}");
            }
        }
    }
    assert!((300 - bound as usize..300).contains(&resets), "{resets} of 301");
}
