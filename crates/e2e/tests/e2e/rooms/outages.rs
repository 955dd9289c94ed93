//! The waiting room while its service or its Redis is away.

use reqwest::Method;
use serde_json::json;
use tutti_e2e::eventually;
use tutti_e2e::rooms::{Rooms, Stream, key, position};
use tutti_e2e::testbed::Testbed;
use tutti_e2e::wire::is_busy;

#[tokio::test]
async fn a_failover_that_forgot_a_ticket_refuses_its_token_and_gives_no_place_twice() {
    let mut rooms = Rooms::start(Testbed::new(1).await, 2, &[]).await;
    let edge = rooms.edge(&[]).await;
    rooms.put(&edge, "sale", r#"{"maxActive":1,"admitPerSecond":50}"#).await;
    rooms.join(&edge, "sale").await;
    let kept = rooms.join(&edge, "sale").await;
    rooms.testbed.redis.save().await.unwrap();
    let (forgotten, third) = (rooms.join(&edge, "sale").await, rooms.join(&edge, "sale").await);
    let stream = Stream::open(&edge, "sale", forgotten.visitor()).await;
    let of_kept = Stream::open(&edge, "sale", kept.visitor()).await;
    eventually("its place", || async { position(&stream.heard()) == Some(2) }).await;
    eventually("its place", || async { position(&of_kept.heard()) == Some(1) }).await;

    rooms.testbed.redis.kill();
    rooms.testbed.redis.run().unwrap();
    let mut later = None;
    eventually("joins go on", || async {
        rooms.ask_to_join(&edge, "sale", &key(), None).await.unwrap().0 == 201
    })
    .await;
    for _ in 0..3 {
        later = Some(rooms.join(&edge, "sale").await);
    }
    let later = later.unwrap();
    assert!(later.ticket >= third.ticket, "its numbers are given out again: {}", later.ticket);
    for joined in [&forgotten, &third] {
        let (status, body) = rooms.act(Method::GET, &edge, "sale", joined, "").await;
        assert_eq!((status.as_u16(), &body["reason"]), (410, &json!("no_ticket")));
        let (status, _) = rooms.act(Method::DELETE, &edge, "sale", joined, "").await;
        assert_eq!(status, 410, "nor can it take another's place away");
    }
    assert_eq!(rooms.ticket(&edge, "sale", &kept).await["position"], 1);
    assert_eq!(rooms.ticket(&edge, "sale", &later).await["state"], "waiting");
    eventually("the stream is told", || async {
        stream.heard().lost.as_deref() == Some("forgotten") && stream.is_over()
    })
    .await;
    assert!(!of_kept.is_over(), "who was not forgotten waits on");
    assert_eq!(of_kept.heard().lost, None);
}

#[tokio::test]
async fn without_its_service_an_edge_says_so_and_goes_on_when_it_is_back() {
    let mut rooms = Rooms::start(Testbed::new(1).await, 2, &[]).await;
    let edge = rooms.edge(&[]).await;
    let (waits, stream) = rooms.one_waits(&edge, "sale").await;
    rooms.queues.iter_mut().for_each(tutti_e2e::service::Service::kill);
    let (status, after, body) = rooms.ask_to_join(&edge, "sale", &key(), None).await.unwrap();
    assert_eq!((status.as_u16(), after.as_deref()), (503, Some("2")), "{body}");
    eventually("the stream says that nothing is new", || async {
        stream.heard().statuses.last().is_some_and(|s| s == "stale")
    })
    .await;
    let newcomer = Stream::open(&edge, "sale", waits.visitor()).await;
    eventually("a newcomer is told, too", || async { newcomer.heard().statuses == ["stale"] }).await;
    let without_keys = rooms.edge(&[]).await;
    let url = format!("{}/v1/rooms/sale/stream?access_token={}", without_keys.url, waits.token);
    let answer = reqwest::get(url).await.unwrap();
    assert_eq!(answer.status(), 200, "any other status ends an EventSource for good");
    assert!(is_busy(&answer.text().await.unwrap(), "unavailable"), "and it comes back by itself");
    rooms.queues[1].run();
    rooms.queues[1].wait_ready().await;
    for stream in [&stream, &newcomer] {
        eventually("all is well again", || async {
            let heard = stream.heard();
            heard.statuses.last().is_some_and(|s| s == "live") && position(&heard) == Some(1)
        })
        .await;
    }
    let bare = rooms.testbed.edge(&[]);
    bare.service.wait_ready().await;
    assert_eq!(rooms.call(Method::GET, &bare, "/v1/rooms/sale/stream", None, "").await.0, 404);
}
