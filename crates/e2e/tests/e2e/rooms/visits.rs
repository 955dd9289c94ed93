//! A visit to the waiting room, from joining to leaving.

use reqwest::Method;
use serde_json::{Value, json};
use tutti::passes::verify;
use tutti_e2e::eventually;
use tutti_e2e::rooms::{Rooms, Stream, position};
use tutti_e2e::testbed::Testbed;
use tutti_feed::{Cursor, Position};
use tutti_load::crowd::Visitor;

use super::{of_type, relayed_all};

#[tokio::test]
async fn a_visitor_sees_the_place_move_gets_in_and_leaves_and_kafka_hears_of_each_step() {
    let rooms = Rooms::start(Testbed::new(1).await, 1, &[]).await;
    let (a, b) = (rooms.edge(&[]).await, rooms.edge(&[]).await);
    rooms.put(&a, "sale", r#"{"maxActive":1,"admitPerSecond":50}"#).await;
    let first = rooms.join(&a, "sale").await;
    assert_eq!(first.body["state"], "admitted", "a free place is used at once: {}", first.body);
    let (second, third) = (rooms.join(&b, "sale").await, rooms.join(&a, "sale").await);
    assert_eq!((&second.body["position"], &second.body["ahead"]), (&json!(1), &json!(0)));
    assert_eq!((&third.body["position"], &third.body["behind"]), (&json!(2), &json!(0)));

    let stream = Stream::open(&b, "sale", third.visitor()).await;
    eventually("the stream tells the same place", || async { position(&stream.heard()) == Some(2) }).await;
    let keys = format!("{}/.well-known/jwks.json", b.url);
    let pass = first.body["pass"].as_str().unwrap();
    assert_eq!(verify(pass, "sale", &keys).await.unwrap().ticket, 1);
    assert!(verify(pass, "other", &keys).await.is_err());

    let early = rooms.act(Method::POST, &a, "sale", &second, "/claim").await;
    assert_eq!((early.0.as_u16(), &early.1["reason"]), (409, &json!("not_admitted")));
    let (status, claimed) = rooms.act(Method::POST, &b, "sale", &first, "/claim").await;
    assert_eq!((status.as_u16(), &claimed["state"]), (200, &json!("claimed")));
    let (_, renewed) = rooms.act(Method::POST, &a, "sale", &first, "/renew").await;
    assert!(renewed["until"].as_u64().unwrap() >= claimed["until"].as_u64().unwrap());
    assert!(verify(renewed["pass"].as_str().unwrap(), "sale", &keys).await.is_ok());
    let (_, released) = rooms.act(Method::POST, &a, "sale", &first, "/release").await;
    assert_eq!((&released["state"], &released["reason"]), (&json!("gone"), &json!("released")));

    eventually("the next is in", || async { rooms.ticket(&b, "sale", &second).await["state"] == "admitted" })
        .await;
    eventually("the third moved up", || async { position(&stream.heard()) == Some(1) }).await;
    rooms.act(Method::DELETE, &b, "sale", &second, "").await;
    eventually("the third has a pass", || async { stream.heard().pass.is_some() }).await;
    assert_eq!(verify(&stream.heard().pass.unwrap(), "sale", &keys).await.unwrap().ticket, 3);
    assert_eq!(stream.heard().grew, 0);

    let changes = relayed_all(&rooms, &a, "sale").await;
    let kinds: Vec<&str> = changes.iter().filter_map(|change| change["type"].as_str()).collect();
    let expected = "settings joined admitted joined joined claimed left admitted left admitted";
    assert_eq!(kinds.join(" "), expected);
}

#[tokio::test]
async fn no_shows_ended_sessions_and_leavers_free_their_places_within_a_second() {
    let rooms = Rooms::start(Testbed::new(1).await, 2, &[]).await;
    let edge = rooms.edge(&[]).await;
    let claims_within = |seconds: u32| {
        let settings =
            json!({"maxActive": 1, "admitPerSecond": 1000, "claimSeconds": seconds, "sessionSeconds": 2});
        settings.to_string()
    };
    rooms.put(&edge, "sale", &claims_within(3)).await;
    let mut all = vec![rooms.join(&edge, "sale").await];
    // The visitor who is inside keeps the deadline. The others have as much time as a busy machine may take.
    rooms.put(&edge, "sale", &claims_within(600)).await;
    for _ in 0..4 {
        all.push(rooms.join(&edge, "sale").await);
    }
    // The first visitor never claims. The second claims, and the session ends. The third claims and releases. The
    // fourth leaves the line.
    rooms.act(Method::DELETE, &edge, "sale", &all[3], "").await;
    for (who, what) in [(1, "/claim"), (2, "/claim"), (2, "/release")] {
        eventually("its turn", || async {
            rooms.act(Method::POST, &edge, "sale", &all[who], what).await.0 == 200
        })
        .await;
    }
    eventually("the last is in", || async {
        rooms.ticket(&edge, "sale", &all[4]).await["state"] != "waiting"
    })
    .await;
    let changes = relayed_all(&rooms, &edge, "sale").await;
    let at = |kind: &str, ticket: u64| {
        let change = of_type(&changes, kind).into_iter().find(|change| change["ticket"] == ticket);
        change.unwrap_or_else(|| panic!("{kind} of {ticket}: {changes:#?}"))["timeUs"].as_u64().unwrap()
            / 1000
    };
    let after = |later: u64, sooner: u64, least: u64| {
        assert!((least..least + 1000).contains(&(later - sooner)), "{later} - {sooner}");
    };
    after(at("expired", 1), at("admitted", 1), 3000);
    after(at("admitted", 2), at("expired", 1), 0);
    after(at("expired", 2), at("claimed", 2), 2000);
    after(at("admitted", 3), at("expired", 2), 0);
    after(at("admitted", 5), at("left", 3), 0);
    let reasons: Vec<&Value> = of_type(&changes, "expired").iter().map(|change| &change["reason"]).collect();
    assert_eq!(reasons[..2], [&json!("no_show"), &json!("session_over")]);
}

#[tokio::test]
async fn a_reset_gives_another_id_also_to_one_who_is_inside() {
    let rooms = Rooms::start(Testbed::new(1).await, 1, &[]).await;
    let edge = rooms.edge(&[]).await;
    rooms.put(&edge, "sale", r#"{"maxActive":1,"admitPerSecond":50}"#).await;
    let inside = rooms.join(&edge, "sale").await;
    let lost = Cursor(vec![Some(Position { epoch: 1, seq: 1 << 40, time_us: 1 << 51 })]).to_text();
    let visitor = Visitor { last_id: lost.clone(), ..inside.visitor() };
    let stream = Stream::open(&edge, "sale", visitor).await;
    eventually("it is told, and admitted", async || {
        let heard = stream.heard();
        heard.resets.len() == 1 && heard.pass.is_some()
    })
    .await;
    assert!(!["", &lost].contains(&stream.heard().last_id.as_str()));
}
