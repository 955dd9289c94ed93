//! JSON Web Key Sets: from a file, and from a URL, as the set there is now.

use std::error::Error as _;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use reqwest::header::ACCEPT;
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use crate::metrics::{Fetched, Metrics};

/// A shorter secret can be guessed (RFC 7518, 3.2).
pub(crate) const MIN_SECRET_BYTES: usize = 32;

/// How long a fetch may take.
const FETCH: Duration = Duration::from_secs(5);
/// What answers with more is no key set.
const MAX_SET_BYTES: usize = 256 * 1024;
/// After a fetch that failed the next one comes so soon, then after twice as long each time.
const RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(30);
/// Tokens of unknown keys have the set fetched again, but not more often than this: anyone can make one.
const ANEW: Duration = Duration::from_secs(10);

/// A key, and what it is good for.
pub(crate) struct Key {
    pub(crate) id: Option<String>,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) key: DecodingKey,
}

/// The key set at a URL.
pub(crate) struct KeySet {
    client: Client,
    url: Url,
    /// The URL as it may be logged: its user, password and query may be secrets.
    shown: String,
    refresh: Duration,
    held: RwLock<Option<Arc<[Key]>>>,
    wanted: Notify,
}

impl KeySet {
    /// # Errors
    /// What is wrong with the URL, without the URL.
    pub(crate) fn new(url: &str, refresh: Duration) -> Result<Self, String> {
        let url = Url::parse(url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or("it is not an http:// or https:// URL")?;
        // Fetches are minutes apart, so no connection is kept. A redirect could lead anywhere, also away
        // from TLS.
        let client = Client::builder()
            .timeout(FETCH)
            .redirect(Policy::none())
            .pool_max_idle_per_host(0)
            .build()
            .map_err(reason)?;
        let shown = format!("{}{}", url.origin().ascii_serialization(), url.path());
        Ok(Self { client, url, shown, refresh, held: RwLock::default(), wanted: Notify::new() })
    }

    /// The keys, once they are known.
    pub(crate) fn keys(&self) -> Option<Arc<[Key]>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// There is a token of a key that the set did not have.
    pub(crate) fn ask_anew(&self) {
        self.wanted.notify_one();
    }

    /// Keeps the keys as they are at the URL, for ever.
    pub(crate) async fn run(&self, metrics: &Metrics) {
        // How it went last is logged where it went otherwise before.
        let mut went_well = None;
        let mut retry = RETRY;
        let mut heeds_from = Instant::now();
        loop {
            let pause = match self.renew(metrics).await {
                Ok(keys) => {
                    if went_well.replace(true) != Some(true) {
                        info!(url = %self.shown, keys, "the key set was fetched");
                    }
                    retry = RETRY;
                    self.refresh
                }
                Err(error) => {
                    if went_well.replace(false) == Some(false) {
                        debug!(url = %self.shown, %error, "the key set cannot be had still");
                    } else {
                        warn!(url = %self.shown, %error, "the key set cannot be had; known keys are kept");
                    }
                    let pause = retry;
                    retry = (retry * 2).min(MAX_RETRY);
                    pause
                }
            };
            let wanted = async move {
                self.wanted.notified().await;
                sleep_until(heeds_from).await;
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = wanted => heeds_from = Instant::now() + ANEW,
            }
        }
    }

    /// Takes the keys that are in the set now, and only those; how many they are.
    async fn renew(&self, metrics: &Metrics) -> Result<usize, String> {
        let fetched = match self.fetch().await {
            Ok(set) => public_keys(&set).map_err(|why| ("unusable", why)),
            Err(why) => Err(("failed", why)),
        };
        let outcome = fetched.as_ref().map_or_else(|(outcome, _)| *outcome, |_| "ok");
        metrics.jwks_fetches.get_or_create(&Fetched { outcome }).inc();
        let keys = fetched.map_err(|(_, why)| why)?;
        let count = keys.len();
        metrics.jwks_keys.set(count as i64);
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Some(keys.into());
        Ok(count)
    }

    async fn fetch(&self) -> Result<Vec<u8>, String> {
        let request = self.client.get(self.url.clone());
        let request = request.header(ACCEPT, "application/jwk-set+json, application/json");
        let mut response = request.send().await.map_err(reason)?;
        if response.status() != StatusCode::OK {
            return Err(format!("the answer was {}", response.status()));
        }
        let mut set = Vec::new();
        while let Some(part) = response.chunk().await.map_err(reason)? {
            if set.len() + part.len() > MAX_SET_BYTES {
                return Err(format!("the answer has more than {MAX_SET_BYTES} bytes"));
            }
            set.extend_from_slice(&part);
        }
        Ok(set)
    }
}

/// What went wrong, down to its cause, and without the URL.
fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    std::iter::successors(error.source(), |&cause| cause.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The keys of a file.
pub(crate) fn read_file(path: &str) -> Result<Vec<Key>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let set: JwkSet = serde_json::from_str(&text).map_err(|e| format!("not a JSON Web Key Set: {e}"))?;
    if set.keys.is_empty() {
        return Err("it has no keys".to_owned());
    }
    // A set may hold keys for others; those that are for us must be good.
    let usable: Vec<Key> =
        set.keys.iter().map(read_jwk).filter_map(Result::transpose).collect::<Result<_, _>>()?;
    if usable.is_empty() {
        return Err(
            "none of its keys is of a kind that is supported (RSA, P-256, P-384, Ed25519, oct)".to_owned()
        );
    }
    Ok(usable)
}

/// The keys of a set that others can read, too: who can read a symmetric key can sign with it, so none is
/// taken. Nobody corrects such a set here, so what is wrong in it is passed over (RFC 7517, 5).
fn public_keys(set: &[u8]) -> Result<Vec<Key>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_slice(set).map_err(|e| format!("not a JSON Web Key Set: {e}"))?;
    let usable: Vec<Key> = set
        .keys
        .into_iter()
        .filter_map(|key| serde_json::from_value::<Jwk>(key).ok())
        .filter(|jwk| !matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_)))
        .filter_map(|jwk| read_jwk(&jwk).ok().flatten())
        .collect();
    if usable.is_empty() {
        return Err("none of its keys is of a kind that is supported (RSA, P-256, P-384, Ed25519)".to_owned());
    }
    Ok(usable)
}

/// One key, if it is of a kind and for an algorithm that we check.
fn read_jwk(jwk: &Jwk) -> Result<Option<Key>, String> {
    // One for encryption signs nothing.
    if jwk.common.public_key_use.as_ref().is_some_and(|its| *its != PublicKeyUse::Signature) {
        return Ok(None);
    }
    let algorithms = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => vec![
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(e) if e.curve == EllipticCurve::P256 => vec![Algorithm::ES256],
        AlgorithmParameters::EllipticCurve(e) if e.curve == EllipticCurve::P384 => vec![Algorithm::ES384],
        AlgorithmParameters::OctetKeyPair(_) => vec![Algorithm::EdDSA],
        AlgorithmParameters::OctetKey(_) => vec![Algorithm::HS256],
        _ => return Ok(None),
    };
    // A key that names its algorithm is good for no other.
    let algorithms = match jwk.common.key_algorithm {
        None => algorithms,
        Some(named) => algorithms.into_iter().filter(|a| format!("{a:?}") == named.to_string()).collect(),
    };
    if algorithms.is_empty() {
        return Ok(None);
    }
    if let AlgorithmParameters::OctetKey(oct) = &jwk.algorithm
        && oct.value.len() * 3 / 4 < MIN_SECRET_BYTES
    {
        return Err(format!("an oct key must have at least {MIN_SECRET_BYTES} bytes"));
    }
    let key = DecodingKey::from_jwk(jwk).map_err(|e| e.to_string())?;
    Ok(Some(Key { id: jwk.common.key_id.clone(), algorithms, key }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_set_from_a_url_gives_its_public_keys_and_passes_the_rest_over() {
        let secret = json!({"kty": "oct", "kid": "s", "alg": "HS256", "k": "A".repeat(64)});
        let jwk: Jwk = serde_json::from_value(secret.clone()).unwrap();
        assert!(read_jwk(&jwk).unwrap().is_some(), "a file may have it");
        assert!(public_keys(json!({"keys": [secret]}).to_string().as_bytes()).is_err());
        let x = "ssW4N8niWcznrZqVyW92r9u9he2RFjmmbgP04jSyYHU";
        let public = json!({"kty": "OKP", "crv": "Ed25519", "kid": "p", "x": x});
        let others = [
            secret,
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "broken", "x": "?"}),
            json!({"kty": "OKP", "crv": "X25519", "kid": "other", "x": x}),
            json!({"kty": "RSA", "alg": "RSA-OAEP", "use": "enc", "kid": "enc", "n": "AQAB", "e": "AQAB"}),
            json!({"kty": 5}),
            json!("no key"),
        ];
        let all: Vec<&Value> = others.iter().chain([&public]).collect();
        let keys = public_keys(json!({"keys": all}).to_string().as_bytes()).unwrap();
        assert!(keys.iter().map(|key| key.id.as_deref()).eq([Some("p")]));
        for garbage in ["", "{}", "[]", r#"{"keys": []}"#, r#"{"keys": 5}"#] {
            assert!(public_keys(garbage.as_bytes()).is_err(), "{garbage}");
        }
    }

    #[test]
    fn only_http_urls_are_taken_and_what_they_hide_is_not_shown() {
        let set = |url| KeySet::new(url, Duration::from_secs(300));
        for url in ["", "id.example/keys", "file:///etc/passwd", "http://", "ftp://id.example/keys"] {
            assert!(set(url).is_err(), "{url}");
        }
        let shown = set("https://user:hush@id.example:8443/keys?key=hush#hush").ok().map(|set| set.shown);
        assert_eq!(shown.as_deref(), Some("https://id.example:8443/keys"));
    }
}
