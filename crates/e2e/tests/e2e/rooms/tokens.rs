//! Tokens, passes and idempotency keys of the waiting room.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tutti::passes::verify;
use tutti_e2e::eventually;
use tutti_e2e::rooms::{Joined, Rooms, SECRET, key};
use tutti_e2e::testbed::{Edge, Testbed};

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
    // Many joins at the same time, at two edges and two replicas.
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

    // The file that signs has the new key, and the old key is among the others.
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
