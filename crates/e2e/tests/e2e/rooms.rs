//! The waiting room, from a visitor's and an administrator's side.

use std::collections::BTreeSet;
use std::time::Duration;

use prost::Message as _;
use reqwest::Method;
use serde_json::{Value, json};
use tutti::passes::verify;
use tutti_e2e::eventually;
use tutti_e2e::rooms::{Joined, Rooms, SECRET, Stream, admin, key, position, read_topic};
use tutti_e2e::testbed::{Edge, Testbed};
use tutti_e2e::wire::is_busy;
use tutti_feed::{Cursor, Position};
use tutti_load::crowd::Visitor;
use tutti_load::now_ms;
use tutti_model::room_event::Event;
use tutti_model::{RoomEvent, lottery};

/// The changes of one kind.
fn of_type<'a>(changes: &'a [Value], kind: &str) -> Vec<&'a Value> {
    changes.iter().filter(|change| change["type"] == kind).collect()
}

async fn relayed_all(rooms: &Rooms, edge: &Edge, room: &str) -> Vec<Value> {
    rooms.until_relayed(edge, room).await;
    rooms.relayed(room)
}

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

#[tokio::test]
async fn tokens_and_passes_of_others_forged_altered_or_expired_are_refused() {
    let rooms = Rooms::start(Testbed::new(1).await, 1, &[]).await;
    let edge = rooms.edge(&[]).await;
    for room in ["sale", "other"] {
        rooms.put(&edge, room, r#"{"maxActive":1,"admitPerSecond":50}"#).await;
    }
    let (inside, waits) = (rooms.join(&edge, "sale").await, rooms.join(&edge, "sale").await);
    let foreign = rooms.join(&edge, "other").await;
    let pass = inside.body["pass"].as_str().unwrap().to_owned();
    let altered = {
        let mut parts: Vec<&str> = waits.token.split('.').collect();
        parts[1] = inside.token.split('.').nth(1).unwrap();
        parts.join(".")
    };
    let claims = waits.token.split('.').nth(1).unwrap();
    let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{claims}.");
    let user = tutti::token::sign(SECRET, "7", "map:read rooms:join", Duration::from_secs(60)).unwrap();
    for token in [&altered, &unsigned, &pass, &foreign.token, &user, &"garbage".to_owned(), &String::new()] {
        for (method, path) in [
            (Method::GET, "/v1/rooms/sale/tickets/2"),
            (Method::DELETE, "/v1/rooms/sale/tickets/2"),
            (Method::POST, "/v1/rooms/sale/tickets/2/claim"),
            (Method::POST, "/v1/rooms/sale/tickets/2/release"),
            (Method::GET, "/v1/rooms/sale/stream"),
        ] {
            let (status, _) = rooms.call(method.clone(), &edge, path, Some(token), "").await;
            assert_eq!(status, 401, "{method} {path} with {token}");
        }
    }
    for (method, path) in
        [(Method::GET, "/v1/rooms"), (Method::PUT, "/v1/rooms/sale"), (Method::DELETE, "/v1/rooms/sale")]
    {
        assert_eq!(rooms.call(method.clone(), &edge, path, None, "").await.0, 401);
        assert_eq!(rooms.call(method.clone(), &edge, path, Some(&user), "").await.0, 403);
        assert_eq!(rooms.call(method, &edge, path, Some(&waits.token), "").await.0, 401);
    }
    let (status, _) = rooms.act(Method::GET, &edge, "sale", &Joined { ticket: 1, ..waits.clone() }, "").await;
    assert_eq!(status, 401, "the token of another ticket");
    assert_eq!(rooms.ticket(&edge, "sale", &waits).await["state"], "waiting", "nothing came of all that");

    let keys = format!("{}/.well-known/jwks.json", edge.url);
    for token in [&waits.token, &altered, &unsigned, &user, &"garbage".to_owned()] {
        assert!(verify(token, "sale", &keys).await.is_err(), "no pass: {token}");
    }
    for bad in ["7", "", "not-a-uuid", "00000000-0000-0000-0000-00000000000g"] {
        let (status, _, _) = rooms.ask_to_join(&edge, "sale", bad, None).await.unwrap();
        assert_eq!(status, 400, "{bad:?}");
    }
}

#[tokio::test]
async fn the_same_key_is_the_same_ticket_and_with_a_token_it_is_the_users_own() {
    let rooms = Rooms::start(Testbed::new(1).await, 2, &[]).await;
    let (a, b) = (rooms.edge(&[]).await, rooms.edge(&[]).await);
    rooms.put(&a, "sale", r#"{"maxActive":1,"admitPerSecond":50}"#).await;
    let user = |sub: &str| tutti::token::sign(SECRET, sub, "", Duration::from_secs(60)).unwrap();
    let key = key();
    let (seven, eight) = (user("7"), user("8"));
    let join = async |edge: &Edge, token: Option<&str>| {
        let (status, _, body) = rooms.ask_to_join(edge, "sale", &key, token).await.unwrap();
        assert_eq!(status, 201, "{body}");
        body["ticket"].as_u64().unwrap()
    };
    let tickets = [join(&a, None).await, join(&a, Some(&seven)).await, join(&b, Some(&eight)).await];
    assert_eq!(tickets.iter().collect::<BTreeSet<_>>().len(), 3, "{tickets:?}");
    let again = [join(&b, None).await, join(&b, Some(&seven)).await, join(&a, Some(&eight)).await];
    assert_eq!(again, tickets);
    // Many at once, on two edges and two replicas.
    let fresh = tutti_e2e::rooms::key();
    let at_once = (0..20).map(|i| rooms.ask_to_join(if i % 2 == 0 { &a } else { &b }, "sale", &fresh, None));
    let mut all = BTreeSet::new();
    for answer in futures_util::future::join_all(at_once).await {
        all.insert(answer.unwrap().2["ticket"].as_u64().unwrap());
    }
    assert_eq!(all.len(), 1);
    let expired = {
        let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
        let claims = json!({"sub": "7", "exp": 1_700_000_000});
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
    };
    assert_eq!(rooms.ask_to_join(&a, "sale", &key, Some(&expired)).await.unwrap().0, 401);
    let private = rooms.edge(&[("rooms.public", "false")]).await;
    assert_eq!(rooms.ask_to_join(&private, "sale", &key, None).await.unwrap().0, 401);
    assert_eq!(rooms.ask_to_join(&private, "sale", &key, Some(&seven)).await.unwrap().0, 403);
}

#[tokio::test]
async fn an_expired_ticket_token_is_refused_and_ends_its_stream() {
    let rooms = Rooms::start(Testbed::new(1).await, 1, &[("tickets.token_seconds", "4")]).await;
    let edge = rooms.edge(&[]).await;
    let (waits, stream) = rooms.one_waits(&edge, "sale").await;
    eventually("it ends, and says so", || async { stream.heard().ended && stream.is_over() }).await;
    let (status, body) = rooms.act(Method::GET, &edge, "sale", &waits, "").await;
    assert_eq!(status, 401);
    assert!(body["detail"].as_str().unwrap().contains("expired"), "{body}");
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
    // Who was let in keeps the deadline; the others have all the time that a busy machine may take.
    rooms.put(&edge, "sale", &claims_within(600)).await;
    for _ in 0..4 {
        all.push(rooms.join(&edge, "sale").await);
    }
    // The first never claims. The second claims, and its session ends. The third claims and
    // releases. The fourth leaves the line.
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
    // Asking with the token is a sign of life, so the figures are what is looked at.
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

#[tokio::test]
async fn the_early_get_their_places_by_the_published_permutation() {
    let rooms = Rooms::start(Testbed::new(1).await, 2, &[]).await;
    let (a, b) = (rooms.edge(&[]).await, rooms.edge(&[]).await);
    let opens_at = now_ms() + 600_000;
    let settings = json!({"maxActive": 1, "admitPerSecond": 1, "opensAt": opens_at}).to_string();
    let made = rooms.put(&a, "sale", &settings).await;
    assert_eq!((&made["opened"], &made["seed"]), (&json!(false), &Value::Null));
    let promised = made["settings"]["seedSha256"].as_str().unwrap().to_owned();
    // Other settings leave the opening time as it is.
    let changed = rooms.put(&b, "sale", r#"{"maxActive":1,"admitPerSecond":1}"#).await;
    assert_eq!(changed["settings"]["opensAt"], json!(opens_at));
    let moved = rooms.call(Method::PUT, &a, "/v1/rooms/none", Some(&admin()), r#"{"opensAt":1e3}"#).await;
    assert_eq!(moved.0, 400, "a time is a whole number of milliseconds");
    let (status, before) = rooms.call(Method::GET, &b, "/v1/rooms/sale/lottery", None, "").await;
    assert_eq!(
        (status.as_u16(), &before["seedSha256"], &before["seed"]),
        (200, &json!(promised), &Value::Null)
    );
    let mut all = Vec::new();
    for _ in 0..40 {
        all.push(rooms.join(&b, "sale").await);
    }
    assert_eq!(all[7].body["position"], Value::Null, "nobody has a place yet");
    let stream = Stream::open(&b, "sale", all[7].visitor()).await;
    eventually("so says the stream", || async {
        stream.heard().updates.first().is_some_and(|u| u.0.is_none())
    })
    .await;
    let left = &all[12];
    rooms.act(Method::DELETE, &a, "sale", left, "").await;

    // All of that took as long as it took; until it has opened, its time can be moved.
    let settings = json!({"maxActive": 1, "admitPerSecond": 1, "opensAt": now_ms() + 1000}).to_string();
    rooms.put(&a, "sale", &settings).await;
    eventually("it opens", || async { rooms.room(&a, "sale").await["opened"] == true }).await;
    let late = rooms.join(&a, "sale").await;
    let (_, drawn) = rooms.call(Method::GET, &b, "/v1/rooms/sale/lottery", None, "").await;
    assert_eq!((&drawn["early"], &drawn["seedSha256"]), (&json!(40), &json!(promised)));
    let seed = drawn["seed"].as_str().unwrap();
    assert_eq!(sha256(seed), promised, "the seed is the one whose hash was published");
    // As anyone would do it, from the seed.
    let mut line: Vec<(u64, u64)> = all
        .iter()
        .filter(|joined| joined.ticket != left.ticket)
        .map(|joined| (lottery::place_of(joined.ticket, 40, seed), joined.ticket))
        .collect();
    line.sort_unstable();
    let order: Vec<u64> = line.iter().map(|(_, ticket)| *ticket).chain([late.ticket]).collect();
    assert_ne!(order, (1..=41).filter(|n| *n != left.ticket).collect::<Vec<_>>(), "it is a lottery");
    let expected = order.iter().position(|ticket| *ticket == all[7].ticket).unwrap() as u64;
    eventually("the stream has a place, and the right one", || async {
        let heard = stream.heard();
        // Up to two may have been let in meanwhile.
        heard.pass.is_some() || position(&heard).is_some_and(|p| p <= expected + 1 && p + 3 > expected)
    })
    .await;
    rooms.put(&a, "sale", r#"{"maxActive":100,"admitPerSecond":1000}"#).await;
    eventually("all are in", || async { rooms.room(&a, "sale").await["figures"]["waiting"] == 0 }).await;
    let changes = relayed_all(&rooms, &a, "sale").await;
    let admitted: Vec<u64> =
        of_type(&changes, "admitted").iter().filter_map(|change| change["ticket"].as_u64()).collect();
    assert_eq!(admitted, order);
}

fn sha256(text: &str) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

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
    let mut anew = None;
    eventually("joins go on", || async {
        rooms.ask_to_join(&edge, "sale", &key(), None).await.unwrap().0 == 201
    })
    .await;
    for _ in 0..3 {
        anew = Some(rooms.join(&edge, "sale").await);
    }
    let anew = anew.unwrap();
    assert!(anew.ticket >= third.ticket, "its numbers are given out again: {}", anew.ticket);
    for joined in [&forgotten, &third] {
        let (status, body) = rooms.act(Method::GET, &edge, "sale", joined, "").await;
        assert_eq!((status.as_u16(), &body["reason"]), (410, &json!("no_ticket")));
        let (status, _) = rooms.act(Method::DELETE, &edge, "sale", joined, "").await;
        assert_eq!(status, 410, "nor can it take another's place away");
    }
    assert_eq!(rooms.ticket(&edge, "sale", &kept).await["position"], 1);
    assert_eq!(rooms.ticket(&edge, "sale", &anew).await["state"], "waiting");
    eventually("the stream is told", || async {
        stream.heard().lost.as_deref() == Some("forgotten") && stream.is_over()
    })
    .await;
    assert!(!of_kept.is_over(), "who was not forgotten waits on");
    assert_eq!(of_kept.heard().lost, None);
}

#[tokio::test]
async fn while_keys_are_changed_both_are_valid() {
    let mut rooms = Rooms::start(Testbed::new(1).await, 1, &[]).await;
    let edge = rooms.edge(&[]).await;
    rooms.put(&edge, "sale", r#"{"maxActive":5,"admitPerSecond":50}"#).await;
    let before = rooms.join(&edge, "sale").await;
    let folder = rooms.testbed.folder().to_owned();
    let (key_file, old, new) =
        (folder.join("pass-key.pem"), folder.join("old-key.pem"), folder.join("new-key.pem"));
    std::fs::copy(&key_file, &old).unwrap();
    std::fs::write(&new, tutti::passes::new_key()).unwrap();
    let keys = format!("{}/.well-known/jwks.json", edge.url);

    // The file that signs is the new one, and the old one is among the others.
    std::fs::copy(&new, &key_file).unwrap();
    rooms.queues[0].set("passes.more_key_files", old.to_str().unwrap());
    rooms.queues[0].kill();
    rooms.queues[0].run();
    rooms.queues[0].wait_ready().await;
    let after = rooms.join(&edge, "sale").await;
    assert_eq!(rooms.ticket(&edge, "sale", &before).await["state"], "admitted", "the old key's token");
    assert_eq!(rooms.ticket(&edge, "sale", &after).await["state"], "admitted", "the new key's token");
    for joined in [&before, &after] {
        let pass = joined.body["pass"].as_str().unwrap();
        assert!(verify(pass, "sale", &keys).await.is_ok(), "a pass of either key");
    }
    let kid = |joined: &Joined| jsonwebtoken::decode_header(&joined.token).unwrap().kid;
    assert_ne!(kid(&before), kid(&after));
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

#[tokio::test(flavor = "multi_thread")]
async fn kafka_may_have_the_changes_as_protobuf() {
    let rooms = Rooms::start(Testbed::new(1).await, 1, &[("relay.format", "protobuf")]).await;
    let edge = rooms.edge(&[]).await;
    rooms.put(&edge, "sale", r#"{"maxActive":1,"admitPerSecond":50,"graceSeconds":7}"#).await;
    rooms.join(&edge, "sale").await;
    rooms.until_relayed(&edge, "sale").await;
    let events: Vec<Event> = read_topic(rooms.testbed.brokers(), &rooms.topic)
        .iter()
        .map(|value| RoomEvent::decode(value.as_slice()).unwrap().event.unwrap())
        .collect();
    assert!(
        matches!(&events[..], [Event::Settings(s), Event::Joined(j), Event::Admitted(a)]
            if s.grace_seconds == 7 && j.ticket == 1 && a.ticket == 1),
        "{events:?}"
    );
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
