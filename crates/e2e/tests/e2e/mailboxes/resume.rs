//! What a reader gets that comes back from a position.

use bytes::Bytes;
use tutti_e2e::redis::Redis;
use tutti_feed::{MailboxChange, MailboxLimits, Position, Since};
use tutti_model::ResetReason;

use super::{KEEP, boxes, file, ids, last_news, log, place};

#[tokio::test]
async fn from_any_place_on_exactly_what_is_later_is_read() {
    let redis = Redis::start().unwrap();
    let boxes = boxes(&redis, MailboxLimits { items: 50, ..KEEP });
    assert_eq!(boxes.read("a", Since::Place(None)).await.unwrap().position, None);
    let strange = Position { epoch: 7, seq: 1, time_us: 1 };
    let mailbox = boxes.read("a", Since::Place(Some(strange))).await.unwrap();
    assert_eq!(mailbox.reset.map(ResetReason::as_str), Some("new_epoch"), "there is no record yet");

    let all: Vec<String> = (0..60).map(|n| format!("{n}")).collect();
    // Each position, and how many items were filed up to it. After every third item another mailbox gets one.
    let mut places = vec![(None, 0)];
    let check = async |places: &[(Option<Position>, usize)], filed: usize, cut: usize| {
        for (place, seen) in places {
            let mailbox = boxes.read("a", Since::Place(*place)).await.unwrap();
            let (reset, from) = if *seen < cut { (Some("too_old"), cut) } else { (None, *seen) };
            assert_eq!(mailbox.reset.map(ResetReason::as_str), reset, "{seen} of {filed}");
            assert_eq!(ids(&mailbox), all[from..filed], "{seen} of {filed}");
            assert_eq!((mailbox.unread as usize, mailbox.marks.len()), (filed - cut, 0));
            assert_eq!(mailbox.position, places.last().unwrap().0);
            for item in &mailbox.items {
                let told = places.iter().find(|(place, _)| place.is_some_and(|p| p.seq == item.seq)).unwrap();
                assert_eq!((told.0.unwrap().time_us, &all[told.1 - 1]), (item.time_us, &item.id));
            }
        }
    };
    for (n, id) in all.iter().enumerate() {
        places.push((Some(file(&boxes, "a", id, id.clone()).await), n + 1));
        if n % 3 == 2 {
            places.push((Some(file(&boxes, "b", id, "").await), n + 1));
        }
        if n == 39 {
            check(&places, 40, 0).await;
        }
    }
    check(&places, 60, 10).await;
    let now = boxes.read("a", Since::Now).await.unwrap();
    assert_eq!((now.items.len(), now.unread, now.position), (0, 50, places.last().unwrap().0));

    // A position is of this feed only if all its parts are.
    let (held, head) = (places[60].0.unwrap(), places.last().unwrap().0.unwrap());
    for (other, reason) in [
        (Position { epoch: held.epoch ^ 1, ..held }, "new_epoch"),
        (Position { seq: head.seq + 1, time_us: head.time_us + 1, ..head }, "history_changed"),
        (Position { seq: head.seq + 1000, ..head }, "history_changed"),
        (Position { time_us: held.time_us + 1, ..held }, "history_changed"),
        (Position { time_us: held.time_us - 1, ..held }, "history_changed"),
        (Position { time_us: head.time_us + 1, ..head }, "history_changed"),
    ] {
        let mailbox = boxes.read("a", Since::Place(Some(other))).await.unwrap();
        assert_eq!(
            (mailbox.reset.map(ResetReason::as_str), ids(&mailbox)),
            (Some(reason), all[10..].to_vec()),
            "{other:?}"
        );
    }
}

#[tokio::test]
async fn a_gap_is_told_to_who_comes_back_from_before_it_and_to_no_other() {
    let redis = Redis::start().unwrap();
    let boxes = boxes(&redis, KEEP);
    let before = file(&boxes, "a", "1", "").await;
    boxes.announce_gap(0, "lost in Kafka").await.unwrap();
    let gap = place(&boxes).await;
    let after = file(&boxes, "a", "2", "").await;
    for address in ["a", "b"] {
        for (place, reset) in
            [(None, Some("gap")), (Some(before), Some("gap")), (Some(gap), None), (Some(after), None)]
        {
            let mailbox = boxes.read(address, Since::Place(place)).await.unwrap();
            assert_eq!(mailbox.reset.map(ResetReason::as_str), reset, "{address} from {place:?}");
            let expected = match (address, place) {
                ("a", Some(place)) if place == gap => vec!["2"],
                ("a", place) if place != Some(after) => vec!["1", "2"],
                _ => vec![],
            };
            assert_eq!(ids(&mailbox), expected, "{address} from {place:?}");
        }
    }
    let records = log(&redis, &boxes).await;
    let told: Vec<u64> = records.iter().map(|record| record.position.seq).collect();
    assert_eq!(told, [1, 2, 3]);
    assert_eq!(last_news(&records, ""), (0, MailboxChange::Gap(Bytes::from("lost in Kafka"))));
}

#[tokio::test]
async fn a_place_that_nobody_can_have_is_a_reset_and_no_error() {
    let redis = Redis::start().unwrap();
    let boxes = boxes(&redis, KEEP);
    let held = file(&boxes, "a", "1", "").await;
    for n in [u64::MAX, 1 << 63, i64::MAX as u64, 1 << 53] {
        for place in [Position { seq: n, ..held }, Position { time_us: n, ..held }] {
            let mailbox = boxes.read("a", Since::Place(Some(place))).await.unwrap();
            assert_eq!(mailbox.reset.map(ResetReason::as_str), Some("history_changed"), "{place:?}");
            assert_eq!(ids(&mailbox), ["1"]);
        }
    }
}
