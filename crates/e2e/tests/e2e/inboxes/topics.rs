//! Notifications to a topic.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tutti::token::sign;
use tutti_e2e::eventually;
use tutti_e2e::inboxes::Device;
use tutti_e2e::rooms::SECRET;

use super::{has, is_live, send, up, urls};

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_reaches_those_whose_token_allows_it_and_is_in_nobodys_inbox() {
    let (inboxes, _ingest, edges) = up::<2>().await;
    let all = urls(&edges);
    let both = Device::new(&all[..1], "7", "?topics=news,sport");
    let news = Device::new(&all[1..], "8", "?topics=news");
    let none = Device::new(&all[1..], "9", "");
    for device in [&both, &news, &none] {
        is_live(device).await;
    }
    let of = |topic: &str, title: &str| json!({ "to": { "topic": topic }, "title": title });
    let a = send(&inboxes, &edges[0], "a", of("news", "a")).await;
    let b = send(&inboxes, &edges[0], "b", of("sport", "b")).await;
    let c = send(&inboxes, &edges[1], "c", json!({ "to": { "users": ["7"] }, "title": "c" })).await;
    has(&both, 3).await;
    has(&news, 1).await;
    let seen = both.leave();
    assert_eq!(
        (seen.data[&a]["topic"].as_str(), seen.data[&b]["topic"].as_str()),
        (Some("news"), Some("sport"))
    );
    assert_eq!((seen.data[&c]["topic"].as_str(), seen.unread), (None, Some(1)));
    assert_eq!(news.seen().ids, [a]);
    assert!(none.seen().ids.is_empty());
    assert_eq!(inboxes.ids(&edges[0], "7").await, std::slice::from_ref(&c));

    // Each feed tells what was missed of it. A topic that the device did not follow before is heard from now on.
    let d = send(&inboxes, &edges[0], "d", of("news", "d")).await;
    let e = send(&inboxes, &edges[0], "e", of("sport", "e")).await;
    let f = send(&inboxes, &edges[0], "f", of("other", "f")).await;
    for (topic, count) in [("news", 2), ("sport", 2), ("other", 1)] {
        let address = format!("topic:{topic}");
        eventually("it is kept", || async { inboxes.kept(&address).await.len() == count }).await;
    }
    let mut back = seen.clone();
    back.ids.clear();
    let back = Device::start(&reqwest::Client::new(), &all[1..], "7", "?topics=other,news", back);
    has(&back, 1).await;
    let g = send(&inboxes, &edges[0], "g", of("other", "g")).await;
    has(&back, 2).await;
    assert_eq!(back.seen().ids, [d, g], "neither {e} nor {f}");

    let narrow = sign(SECRET, "7", "inbox:topics:news", Duration::from_secs(60)).unwrap();
    for (query, status) in [("?topics=news", 200), ("?topics=news,sport", 403), ("?topics=a%20b", 400)] {
        let path = format!("/v1/inbox/stream{query}");
        let answer = inboxes.call(Method::HEAD, &edges[0], &path, &narrow, "").await;
        assert_eq!(answer.status.as_u16(), status, "{query}");
    }
}
