//! What an administrator does with a room.

use reqwest::Method;
use serde_json::{Value, json};
use tutti_e2e::eventually;
use tutti_e2e::rooms::{Rooms, Stream, admin, key, position};
use tutti_e2e::testbed::Testbed;

use super::relayed_all;

#[tokio::test]
async fn an_administrator_makes_pauses_drains_and_closes_a_room() {
    let rooms = Rooms::start(Testbed::new(1).await, 2, &[]).await;
    let edge = rooms.edge(&[]).await;
    let admin = admin();
    let call = async |method: Method, path: &str, body: &str| {
        rooms.call(method, &edge, path, Some(&admin), body).await
    };
    let (status, missing) = call(Method::GET, "/v1/rooms/sale", "").await;
    assert_eq!((status.as_u16(), &missing["reason"]), (404, &json!("no_room")));
    for bad in [r#"{"maxActive":0}"#, r#"{"maxactive":5}"#, "[]", r#"{"admitPerSecond":-1}"#, "x"] {
        assert_eq!(call(Method::PUT, "/v1/rooms/sale", bad).await.0, 400, "{bad}");
    }
    for bad in ["Sale", "a%20b", "a%7Bb%7D", &"a".repeat(65)] {
        assert_eq!(call(Method::PUT, &format!("/v1/rooms/{bad}"), "{}").await.0, 400, "{bad}");
    }
    let made = rooms.put(&edge, "sale", r#"{"maxActive":1,"admitPerSecond":50}"#).await;
    assert_eq!(made["settings"]["claimSeconds"], 60, "a default");
    rooms.join(&edge, "sale").await;
    let second = rooms.join(&edge, "sale").await;

    let (_, paused) = call(Method::POST, "/v1/rooms/sale/pause", "").await;
    assert_eq!(paused["mode"], "paused");
    rooms.put(&edge, "sale", r#"{"maxActive":5,"admitPerSecond":50}"#).await;
    let third = rooms.join(&edge, "sale").await;
    assert_eq!((&third.body["state"], &third.body["etaSeconds"]), (&json!("waiting"), &Value::Null));
    let (_, drained) = call(Method::POST, "/v1/rooms/sale/drain", "").await;
    assert_eq!(drained["mode"], "draining");
    let (status, _, refused) = rooms.ask_to_join(&edge, "sale", &key(), None).await.unwrap();
    assert_eq!((status.as_u16(), &refused["reason"]), (409, &json!("draining")));
    for joined in [&second, &third] {
        eventually("who waited gets in", || async {
            rooms.ticket(&edge, "sale", joined).await["state"] == "admitted"
        })
        .await;
    }
    call(Method::POST, "/v1/rooms/sale/resume", "").await;
    let fourth = rooms.join(&edge, "sale").await;
    let path = format!("/v1/rooms/sale/tickets/{}", fourth.ticket);
    let (_, removed) = call(Method::DELETE, &path, "").await;
    assert_eq!(removed["reason"], "removed");
    call(Method::POST, "/v1/rooms/sale/pause", "").await;
    let fifth = rooms.join(&edge, "sale").await;
    let stream = Stream::open(&edge, "sale", fifth.visitor()).await;
    eventually("the fifth waits", || async { position(&stream.heard()) == Some(1) }).await;
    let figures = rooms.room(&edge, "sale").await["figures"].clone();
    assert_eq!(
        (&figures["joined"], &figures["left"], &figures["waiting"]),
        (&json!(5), &json!(1), &json!(1))
    );

    let (_, closed) = call(Method::DELETE, "/v1/rooms/sale", "").await;
    assert_eq!(closed["mode"], "closed");
    eventually("the stream says so, and ends for good", || async {
        let heard = stream.heard();
        heard.lost.as_deref() == Some("closed") && heard.ended && stream.is_over()
    })
    .await;
    let (status, _, refused) = rooms.ask_to_join(&edge, "sale", &key(), None).await.unwrap();
    assert_eq!((status.as_u16(), &refused["reason"]), (409, &json!("closed")));
    assert_eq!(call(Method::PUT, "/v1/rooms/sale", "{}").await.0, 409);
    let (_, list) = call(Method::GET, "/v1/rooms", "").await;
    assert_eq!(list["rooms"][0]["room"], "sale");
    eventually("what visitors left is cleared away", || async {
        let keys: Vec<String> = rooms.testbed.redis.command(&["KEYS", "tutti:{room.sale}*"]).await.unwrap();
        keys.len() == 2
    })
    .await;
    let changes = relayed_all(&rooms, &edge, "sale").await;
    assert_eq!(changes.last().unwrap()["mode"], "closed", "Kafka hears of the end, too");
}
