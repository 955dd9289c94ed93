//! Keys from a URL, as they are published and withdrawn there.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::Response;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tutti::passes::new_key;
use tutti_e2e::testbed::{Edge, Testbed};
use tutti_e2e::wire::is_busy;
use tutti_e2e::{client, eventually, free_port};

const FAILED: &str = r#"tutti_edge_jwks_fetches_total{outcome="failed"}"#;
const UNUSABLE: &str = r#"tutti_edge_jwks_fetches_total{outcome="unusable"}"#;

/// A key, and its entry in a key set.
struct Key {
    algorithm: Algorithm,
    kid: &'static str,
    private: EncodingKey,
    public: Value,
}

impl Key {
    fn ed25519(kid: &'static str) -> Self {
        Self::new(kid, Algorithm::EdDSA, EncodingKey::from_ed_pem(new_key().as_bytes()).unwrap())
    }

    fn symmetric(kid: &'static str) -> Self {
        Self::new(kid, Algorithm::HS256, EncodingKey::from_secret(new_key().as_bytes()))
    }

    fn new(kid: &'static str, algorithm: Algorithm, private: EncodingKey) -> Self {
        let mut jwk = Jwk::from_encoding_key(&private, algorithm).unwrap();
        jwk.common.key_id = Some(kid.to_owned());
        let public = serde_json::to_value(jwk).unwrap();
        Self { algorithm, kid, private, public }
    }

    fn sign(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let header = Header { kid: Some(self.kid.to_owned()), ..Header::new(self.algorithm) };
        encode(&header, &json!({"sub": "7", "scope": "map:read", "exp": now + 3600}), &self.private).unwrap()
    }
}

/// Publishes a key set while it is up.
struct Publisher {
    port: u16,
    set: Arc<Mutex<Value>>,
    asked: Arc<AtomicUsize>,
    serving: Option<JoinHandle<()>>,
}

impl Publisher {
    fn new() -> Self {
        Self { port: free_port(), set: Arc::default(), asked: Arc::default(), serving: None }
    }

    fn url(&self) -> String {
        format!("http://user:hush@127.0.0.1:{}/keys.json?key=hush", self.port)
    }

    fn publish(&self, keys: &[&Key]) {
        let keys: Vec<&Value> = keys.iter().map(|key| &key.public).collect();
        *self.set.lock().unwrap() = json!({ "keys": keys });
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn up(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        let (set, asked) = (self.set.clone(), self.asked.clone());
        self.serving = Some(tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let mut socket = BufReader::new(socket);
                let mut line = String::new();
                // The head ends with an empty line, and there is no body.
                while socket.read_line(&mut line).await.is_ok_and(|bytes| bytes > 2) {
                    line.clear();
                }
                asked.fetch_add(1, Ordering::SeqCst);
                let body = set.lock().unwrap().to_string();
                let length = body.len();
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                // The client may be gone.
                let _ = socket.write_all((head + &body).as_bytes()).await;
                let _ = socket.shutdown().await;
            }
        }));
    }

    async fn down(&mut self) {
        let serving = self.serving.take().unwrap();
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
    }
}

async fn ask(edge: &Edge, token: &str) -> Response {
    client().get(format!("{}/v1/map/locations", edge.url)).bearer_auth(token).send().await.unwrap()
}

async fn status(edge: &Edge, key: &Key) -> u16 {
    ask(edge, &key.sign()).await.status().as_u16()
}

#[tokio::test]
async fn keys_at_a_url_are_followed_as_they_come_and_go() {
    let testbed = Testbed::new(1).await;
    let mut publisher = Publisher::new();
    let (a, b, stranger, secret) =
        (Key::ed25519("a"), Key::ed25519("b"), Key::ed25519("stranger"), Key::symmetric("secret"));
    let url = publisher.url();
    // The refresh time is so long that a new key is only fetched because a token names it.
    let edge = testbed.edge(&[
        ("map.public", "false"),
        ("auth.jwks_url", url.as_str()),
        ("auth.jwks_refresh_seconds", "86400"),
    ]);
    edge.service.wait_ready().await;

    let unchecked = ask(&edge, &a.sign()).await;
    assert_eq!(unchecked.status(), 503, "nobody knows yet");
    assert!(unchecked.headers().contains_key("retry-after"));
    assert_eq!(unchecked.headers()["content-type"], "application/problem+json");
    let stream = client().get(edge.stream()).bearer_auth(a.sign()).send().await.unwrap();
    assert_eq!(stream.status(), 200, "any other status ends an EventSource for good");
    assert!(is_busy(&stream.text().await.unwrap(), "unavailable"), "and it comes back by itself");
    assert_eq!(
        client().get(edge.stream()).send().await.unwrap().status(),
        401,
        "without a token there is no doubt"
    );
    assert_eq!(status(&edge, &secret).await, 401, "nor with one that no set is good for");

    publisher.publish(&[&secret, &a]);
    publisher.up().await;
    eventually("the first set is there", || async { status(&edge, &a).await == 200 }).await;
    assert_eq!(edge.service.metric("tutti_edge_jwks_keys").await, 1.0);
    assert_eq!(status(&edge, &secret).await, 401, "who reads the set could sign with it");
    assert_eq!(status(&edge, &b).await, 401);

    publisher.publish(&[&b]);
    eventually("the new key is accepted", || async { status(&edge, &b).await == 200 }).await;
    assert_eq!(status(&edge, &a).await, 401, "the old one left the set");

    let (asked, began) = (publisher.asked(), Instant::now());
    for _ in 0..100 {
        assert_eq!(status(&edge, &stranger).await, 401);
    }
    let fetches = publisher.asked() - asked;
    // One fetch from before may still be on its way, and one may come at once.
    let most = began.elapsed().as_secs() as usize / 10 + 2;
    assert!(fetches <= most, "a flood of unknown keys made {fetches} fetches");

    publisher.publish(&[&secret]);
    eventually("a set without a usable key was fetched", || async {
        assert_eq!(status(&edge, &stranger).await, 401);
        edge.service.metric(UNUSABLE).await > 0.0
    })
    .await;
    assert_eq!(status(&edge, &b).await, 200, "what is known stays good");

    publisher.down().await;
    let failed = edge.service.metric(FAILED).await;
    eventually("a fetch failed", || async {
        assert_eq!(status(&edge, &stranger).await, 401);
        edge.service.metric(FAILED).await > failed
    })
    .await;
    assert_eq!(status(&edge, &b).await, 200, "what is known stays good");

    publisher.publish(&[&a, &b]);
    publisher.up().await;
    eventually("the set is followed again", || async { status(&edge, &a).await == 200 }).await;
    assert_eq!(status(&edge, &b).await, 200);

    let log = edge.service.log();
    assert!(log.contains("/keys.json") && log.contains("the key set was fetched"), "{log}");
    assert!(!log.contains("hush"), "{log}");
}
