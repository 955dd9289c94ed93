//! Streams that need a token.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;
use tutti::token::sign;
use tutti_e2e::eventually;
use tutti_e2e::testbed::{Edge, Testbed};
use tutti_e2e::viewer::Following;
use tutti_load::sse::{Request, Source};

const SECRET: &str = "a-secret-of-these-tests-and-of-nothing-else";
/// A private key for these tests alone, and the public key that belongs to it.
const ED25519: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIAZAem7DcMVOozSmfxESmanRuRPaEsnRXtPO2Ig7mToK\n\
    -----END PRIVATE KEY-----\n";
const ED25519_PUBLIC: &str = "ssW4N8niWcznrZqVyW92r9u9he2RFjmmbgP04jSyYHU";

const HOUR: Duration = Duration::from_secs(3600);

fn hs256(scope: &str, ttl: Duration) -> String {
    sign(SECRET, "7", scope, ttl).unwrap()
}

fn ed25519(kid: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::EdDSA) };
    let key = EncodingKey::from_ed_pem(ED25519.as_bytes()).unwrap();
    encode(&header, &json!({"sub": "7", "scope": "map:read", "exp": now + 3600}), &key).unwrap()
}

fn expired() -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    encode(&Header::default(), &json!({"sub": "7", "scope": "map:read", "exp": 1_700_000_000}), &key).unwrap()
}

fn without_expiry() -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    encode(&Header::default(), &json!({"sub": "7", "scope": "map:read"}), &key).unwrap()
}

/// Returns the claims of a good token under `alg: none`, without a signature.
fn unsigned() -> String {
    let good = hs256("map:read", HOUR);
    let claims = good.split('.').nth(1).unwrap();
    // {"alg":"none","typ":"JWT"}
    format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{claims}.")
}

/// Returns a token with the signature of a good token and other claims.
fn altered() -> String {
    let (good, other) = (hs256("map:read", HOUR), hs256("map:read admin", HOUR));
    let mut parts: Vec<&str> = good.split('.').collect();
    parts[1] = other.split('.').nth(1).unwrap();
    parts.join(".")
}

async fn status(edge: &Edge, token: &str) -> u16 {
    reqwest::Client::new().get(edge.stream()).bearer_auth(token).send().await.unwrap().status().as_u16()
}

/// Whether a text contains a token, or its claims or its signature alone.
fn finds(text: &str, token: &str) -> bool {
    token.split('.').skip(1).filter(|part| part.len() > 8).any(|part| text.contains(part))
}

/// Makes a token for an audience and from an issuer, either of which may be missing.
fn with_claims(claims: &serde_json::Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut all = json!({"sub": "7", "scope": "map:read", "exp": now + 3600});
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    encode(&Header::default(), &all, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

#[tokio::test]
async fn a_token_for_others_or_of_others_is_refused_also_where_it_does_not_say() {
    let testbed = Testbed::new(1).await;
    let edge = testbed.edge(&[
        ("map.public", "false"),
        ("auth.hs256_secret", SECRET),
        ("auth.audience", "maps"),
        ("auth.issuer", "https://id.example"),
    ]);
    edge.service.wait_ready().await;
    let good = json!({"aud": "maps", "iss": "https://id.example"});
    assert_eq!(status(&edge, &with_claims(&good)).await, 200);
    for claims in [
        json!({}),
        json!({"aud": "maps"}),
        json!({"iss": "https://id.example"}),
        json!({"aud": "shop", "iss": "https://id.example"}),
        json!({"aud": "maps", "iss": "https://evil.example"}),
        json!({"aud": 5, "iss": "https://id.example"}),
        json!({"aud": "maps", "iss": {}}),
    ] {
        assert_eq!(status(&edge, &with_claims(&claims)).await, 401, "{claims}");
    }
    for (scope, answer) in
        [(json!(["other", "map:read"]), 200), (json!(["map:read other"]), 403), (json!(5), 401)]
    {
        let claims = json!({"aud": "maps", "iss": "https://id.example", "scope": scope});
        assert_eq!(status(&edge, &with_claims(&claims)).await, answer, "{scope}");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    for (exp, answer) in [(now + 3600.25, 200), (now - 0.25, 401)] {
        let claims = json!({"aud": "maps", "iss": "https://id.example", "exp": exp, "nbf": now - 0.5});
        assert_eq!(status(&edge, &with_claims(&claims)).await, answer, "{exp}");
    }
    let critical = Header { crit: Some(vec!["b64".to_owned()]), ..Header::default() };
    let claims =
        json!({"aud": "maps", "iss": "https://id.example", "scope": "map:read", "exp": now + 3600.0});
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    assert_eq!(status(&edge, &encode(&Header::default(), &claims, &key).unwrap()).await, 200);
    assert_eq!(status(&edge, &encode(&critical, &claims, &key).unwrap()).await, 401, "it is not understood");
    let token = with_claims(&good);
    let url = format!("{}?access_token={token}", edge.stream());
    let stale_cookie = reqwest::Client::new().get(url).header("cookie", format!("tutti_token={}", expired()));
    assert_eq!(stale_cookie.send().await.unwrap().status(), 200, "a cookie does not stand in the way");
}

#[tokio::test]
async fn a_stream_that_needs_a_token_is_given_to_valid_ones_only_and_none_is_logged() {
    let testbed = Testbed::new(1).await;
    let jwks = testbed.folder().join("jwks.json");
    let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "one", "alg": "EdDSA", "x": ED25519_PUBLIC}]});
    std::fs::write(&jwks, set.to_string()).unwrap();
    let (_ingest, [edge]) = testbed
        .up([&[
            ("map.public", "false"),
            ("auth.hs256_secret", SECRET),
            ("auth.jwks_file", jwks.to_str().unwrap()),
            ("log.level", "trace,actix_http=trace,actix_web=trace,tutti_edge=trace"),
        ]])
        .await;

    let none = reqwest::get(edge.stream()).await.unwrap();
    assert_eq!(none.status(), 401);
    assert_eq!(none.headers()["content-type"], "application/problem+json");
    assert_eq!(none.headers()["www-authenticate"], "Bearer");
    assert_eq!(reqwest::get(format!("{}/v1/map/locations", edge.url)).await.unwrap().status(), 401);

    let forged = sign("another-secret-that-nobody-configured", "7", "map:read", HOUR).unwrap();
    let refused =
        [unsigned(), forged, expired(), without_expiry(), altered(), ed25519("two"), "garbage".into()];
    for token in &refused {
        assert_eq!(status(&edge, token).await, 401, "{token}");
    }
    let scopeless = hs256("notifications:send", HOUR);
    assert_eq!(status(&edge, &scopeless).await, 403);

    let good = hs256("other map:read", HOUR);
    assert_eq!(status(&edge, &good).await, 200);
    let signed = ed25519("one");
    assert_eq!(status(&edge, &signed).await, 200);
    let by_query = Following::start(&format!("{}?access_token={good}", edge.stream())).await;
    eventually("the query's token opens the stream", || async { !by_query.viewer().statuses.is_empty() })
        .await;
    let by_cookie = reqwest::Client::new().get(edge.stream()).header("cookie", format!("tutti_token={good}"));
    assert_eq!(by_cookie.send().await.unwrap().status(), 200);

    let short = hs256("map:read", Duration::from_secs(3));
    let request = Request { url: edge.stream(), last_event_id: None, token: Some(short.clone()) };
    let mut open = Source::open(&request).await.unwrap();
    let mut last = None;
    while let Some(event) = open.next().await.unwrap() {
        last = Some((event.event, event.data));
    }
    assert_eq!(
        last,
        Some(("end".into(), r#"{"reason":"token_expired"}"#.into())),
        "it ended the open stream"
    );

    let log = edge.service.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the log is as loud as it gets");
    for token in refused.iter().chain([&scopeless, &good, &signed, &short]).filter(|t| t.contains('.')) {
        assert!(finds(&format!("{log} {token}"), token), "the search would find it");
        assert!(!finds(&log, token), "a token is in the log");
    }
}
