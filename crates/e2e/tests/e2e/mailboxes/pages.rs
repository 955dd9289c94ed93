//! Pages of a mailbox, newest first.

use std::collections::HashSet;

use tutti_e2e::redis::Redis;
use tutti_feed::{Item, Mark, Page, Since};

use super::{KEEP, boxes, file, ids};

#[tokio::test]
async fn pages_of_any_size_are_together_the_whole_mailbox_newest_first() {
    let redis = Redis::start().unwrap();
    let boxes = boxes(&redis, KEEP);
    let newest = Page { before: None, items: 5, bytes: 0, unread_alone: false };
    assert_eq!(boxes.read_page("a", newest).await.unwrap().unwrap().items, []);
    let all: Vec<String> = (0..40).map(|n| format!("{n}")).collect();
    for id in &all {
        file(&boxes, "a", id, vec![b'x'; 100]).await;
    }
    for read in all.iter().step_by(3) {
        boxes.mark("a", Mark::Read, read).await.unwrap();
    }
    let whole = boxes.read("a", Since::All).await.unwrap();
    let is_read = |id: &String| whole.marks.contains_key(id);
    for (items, bytes, most) in [(1, 0, 1), (7, 0, 7), (40, 0, 40), (1000, 0, 40), (1000, 300, 2), (3, 1, 1)]
    {
        for unread_alone in [false, true] {
            let (mut before, mut told) = (None::<String>, Vec::new());
            loop {
                let page = Page { before: before.as_deref(), items, bytes, unread_alone };
                let page = boxes.read_page("a", page).await.unwrap().unwrap();
                assert!((1..=most).contains(&page.items.len()), "{page:?}");
                assert_eq!((page.unread, page.position), (whole.unread, whole.position));
                let marked: HashSet<&String> = page.marks.keys().collect();
                assert_eq!(marked, page.items.iter().map(|item| &item.id).filter(|id| is_read(id)).collect());
                before = page.items.last().map(Item::place);
                told.extend(page.items);
                if !page.more {
                    break;
                }
            }
            let mut expected = whole.items.clone();
            expected.retain(|item| !unread_alone || !is_read(&item.id));
            expected.reverse();
            assert_eq!(told, expected, "{items} items, {bytes} bytes, unread alone: {unread_alone}");
        }
    }
}

#[tokio::test]
async fn a_page_goes_on_before_an_id_or_a_place_also_where_its_item_has_gone() {
    let redis = Redis::start().unwrap();
    let boxes = boxes(&redis, KEEP);
    // One id looks like a position.
    for id in ["1", "2", "9-9", "4"] {
        file(&boxes, "a", id, "").await;
    }
    let before = async |before: &str| {
        let page = Page { before: Some(before), items: 10, bytes: 0, unread_alone: false };
        boxes.read_page("a", page).await.unwrap().map(|page| ids(&page))
    };
    let places: Vec<String> =
        boxes.read("a", Since::All).await.unwrap().items.iter().map(Item::place).collect();
    assert_eq!(before(&places[2]).await.unwrap(), ["2", "1"]);
    assert_eq!(before("9-9").await.unwrap(), ["2", "1"]);
    assert_eq!(before("2").await.unwrap(), ["1"]);
    assert_eq!(before("1").await.unwrap(), Vec::<String>::new());
    assert_eq!(before("nothing").await, None);
    assert_eq!(boxes.mark("a", Mark::Delete, "9-9").await.unwrap(), Some(3));
    assert_eq!(before(&places[2]).await.unwrap(), ["2", "1"]);
    for beyond in ["18446744073709551615-1", "99-99"] {
        assert_eq!(before(beyond).await.unwrap(), ["4", "2", "1"], "{beyond}");
    }
}

/// Redis reads no more of a mailbox than the page has.
#[tokio::test]
async fn a_page_of_one_costs_redis_no_more_than_a_page() {
    let redis = Redis::start().unwrap();
    let boxes = boxes(&redis, KEEP);
    for n in 0..100 {
        file(&boxes, "a", &format!("{n}"), vec![b'x'; 5000]).await;
    }
    let sent = async || {
        let info: String = redis.command(&["INFO", "stats"]).await.unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:")).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    let before = sent().await;
    for _ in 0..20 {
        let page = Page { before: None, items: 1, bytes: 65_536, unread_alone: false };
        assert_eq!(boxes.read_page("a", page).await.unwrap().unwrap().items.len(), 1);
    }
    let bytes = sent().await - before;
    assert!(bytes < 20 * 10_000, "{bytes} bytes for 20 pages of 5 KB, of a mailbox of 500 KB");
}
