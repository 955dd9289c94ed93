//! Whose token opens which inbox.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tutti::token::sign;
use tutti_e2e::eventually;
use tutti_e2e::inboxes::token;
use tutti_e2e::rooms::SECRET;

use super::{send, up};

#[tokio::test(flavor = "multi_thread")]
async fn one_users_token_opens_nothing_of_anothers_and_bad_tokens_open_nothing() {
    let (inboxes, _ingest, [edge]) = up::<1>().await;
    let id = send(&inboxes, &edge, "a", json!({"to": {"users": ["7"]}, "title": "secret"})).await;
    eventually("it is there", || async { inboxes.ids(&edge, "7").await.len() == 1 }).await;
    let forged = sign("another-secret-of-more-than-32-bytes!", "7", "", Duration::from_secs(60)).unwrap();
    let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiI3IiwiZXhwIjo5OTk5OTk5OTk5fQ.";
    let expired = jsonwebtoken::encode(
        &jsonwebtoken::Header::default(),
        &json!({ "sub": "7", "exp": 1_700_000_000 }),
        &jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes()),
    )
    .unwrap();
    let nobody = sign(SECRET, "", "", Duration::from_secs(60)).unwrap();
    let paths = [
        (Method::GET, "/v1/inbox/stream".to_owned()),
        (Method::GET, "/v1/inbox".to_owned()),
        (Method::POST, format!("/v1/inbox/{id}/read")),
        (Method::POST, "/v1/inbox/read".to_owned()),
        (Method::DELETE, format!("/v1/inbox/{id}")),
    ];
    for (method, path) in &paths {
        for bad in ["", &forged, unsigned, &expired, &nobody] {
            let answer = inboxes.call(method.clone(), &edge, path, bad, r#"{"upTo":"x"}"#).await;
            assert_eq!(answer.status, 401, "{method} {path} {bad}");
        }
    }
    // The token of another user shows nothing of this inbox.
    assert!(inboxes.ids(&edge, "8").await.is_empty());
    let theirs = token("8");
    for (method, path, status) in [
        (Method::POST, format!("/v1/inbox/{id}/read"), 404),
        (Method::DELETE, format!("/v1/inbox/{id}"), 200),
    ] {
        let answer = inboxes.call(method, &edge, &path, &theirs, "").await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
    }
    let list = inboxes.list(&edge, "7", "").await;
    assert_eq!(
        (list["unread"].as_u64(), list["notifications"][0]["title"].as_str()),
        (Some(1), Some("secret"))
    );
    // A browser sends its cookie with the requests of any page.
    let ask = async |origin: &str| {
        let request = reqwest::Client::new().post(format!("{}/v1/inbox/{id}/read", edge.url));
        let cookie = format!("tutti_token={}", token("7"));
        request.header("cookie", cookie).header("origin", origin).send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask("https://elsewhere.example").await, 401);
    assert_eq!(inboxes.list(&edge, "7", "").await["unread"].as_u64(), Some(1));
    assert_eq!(ask(&edge.url).await, 200);
    assert_eq!(inboxes.list(&edge, "7", "").await["unread"].as_u64(), Some(0));
    // Sending, and asking who is online, need scopes.
    let answer = inboxes.call(Method::POST, &edge, "/v1/notifications", &theirs, "{}").await;
    assert_eq!(answer.status, 403);
    let answer = inboxes.call(Method::GET, &edge, "/v1/presence/7", &theirs, "").await;
    assert_eq!(answer.status, 403);

    // When a token expires, the edge ends the stream.
    let short = sign(SECRET, "7", "", Duration::from_secs(2)).unwrap();
    let request = tutti_load::sse::Request {
        url: format!("{}/v1/inbox/stream", edge.url),
        last_event_id: None,
        token: Some(short),
    };
    let mut source = tutti_load::sse::Source::open(&request).await.unwrap();
    let mut ends = Vec::new();
    while let Some(event) = source.next().await.unwrap() {
        ends.extend((event.event == "end").then_some(event.data));
    }
    assert_eq!(ends, [r#"{"reason":"token_expired"}"#]);
}
