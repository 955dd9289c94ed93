//! Visitors that are away, and edges that are new.

use reqwest::Method;
use serde_json::json;
use tutti_e2e::eventually;
use tutti_e2e::rooms::{Joined, Rooms, Stream, position};
use tutti_e2e::testbed::Testbed;

#[tokio::test]
async fn who_is_away_for_the_grace_period_leaves_the_line_also_when_the_edge_was_killed() {
    let rooms = Rooms::start(Testbed::new(1).await, 2, &[]).await;
    let mut dies = rooms.edge(&[]).await;
    let stays = rooms.edge(&[]).await;
    rooms.put(&stays, "sale", r#"{"maxActive":1,"admitPerSecond":50,"graceSeconds":15}"#).await;
    let inside = rooms.join(&stays, "sale").await;
    rooms.act(Method::POST, &stays, "sale", &inside, "/claim").await;
    let [_never, closes, on_both, dead, polls] = {
        let mut all = Vec::new();
        for _ in 0..5 {
            all.push(rooms.join(&stays, "sale").await);
        }
        <[Joined; 5]>::try_from(all).unwrap()
    };
    let closing = Stream::open(&stays, "sale", closes.visitor()).await;
    let kept = Stream::open(&stays, "sale", on_both.visitor()).await;
    let _other = Stream::open(&dies, "sale", on_both.visitor()).await;
    let killed = Stream::open(&dies, "sale", dead.visitor()).await;
    for stream in [&closing, &kept, &killed] {
        eventually("its place is told", || async { position(&stream.heard()).is_some() }).await;
    }
    // A request with the token is a sign of life, so the test reads the figures of the room.
    let away = async |count: u64| {
        rooms.act(Method::GET, &stays, "sale", &polls, "").await;
        rooms.room(&stays, "sale").await["figures"]["away"].as_u64() >= Some(count)
    };
    eventually("who never had a stream is gone", || away(1)).await;
    closing.cut();
    eventually("who closed it is gone", || away(2)).await;
    dies.service.kill();
    eventually("who was on the edge that was killed is gone", || away(3)).await;
    assert_eq!(rooms.ticket(&stays, "sale", &polls).await["position"], 2, "who asks now and then stays");
    assert_eq!(position(&kept.heard()), Some(1), "who has a stream stays");
    let lost = rooms.ticket(&stays, "sale", &dead).await;
    assert_eq!((&lost["state"], &lost["reason"]), (&json!("gone"), &json!("away")));
}

#[tokio::test]
async fn a_new_edge_is_exact_from_its_first_event_and_who_slept_keeps_the_place() {
    let rooms = Rooms::start(Testbed::new(1).await, 2, &[]).await;
    let a = rooms.edge(&[]).await;
    rooms.put(&a, "sale", r#"{"maxActive":1,"admitPerSecond":50}"#).await;
    let mut all = Vec::new();
    for _ in 0..30 {
        all.push(rooms.join(&a, "sale").await);
    }
    for gone in [5, 6, 9] {
        rooms.act(Method::DELETE, &a, "sale", &all[gone], "").await;
    }
    let phone = Stream::open(&a, "sale", all[20].visitor()).await;
    eventually("its place", || async { position(&phone.heard()) == Some(17) }).await;
    let asleep = phone.cut();
    for gone in [2, 3] {
        rooms.act(Method::DELETE, &a, "sale", &all[gone], "").await;
    }
    let b = rooms.edge(&[]).await;
    for who in [1, 4, 15, 29] {
        let expected = rooms.ticket(&b, "sale", &all[who]).await["position"].as_u64();
        let stream = Stream::open(&b, "sale", all[who].visitor()).await;
        eventually("a first event", || async { !stream.heard().updates.is_empty() }).await;
        assert_eq!(stream.heard().updates[0].0, expected, "ticket {}", all[who].ticket);
    }
    let awake = Stream::open(&b, "sale", asleep).await;
    eventually("it has moved up", || async { position(&awake.heard()) == Some(15) }).await;
    assert_eq!((awake.heard().grew, awake.heard().resets.len()), (0, 0));
}
