//! JSON Web Key Sets, read from a file at the start, or kept current with a URL.

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

/// Length of the shortest secret that is accepted. A shorter one can be guessed (RFC 7518, 3.2).
pub(crate) const MIN_SECRET_BYTES: usize = 32;

/// Timeout of a fetch.
const FETCH: Duration = Duration::from_secs(5);
/// Length of the longest response that is read. No key set is longer.
const MAX_SET_BYTES: usize = 256 * 1024;
/// Pause after the first fetch that fails. It doubles with each further failure, up to [`MAX_RETRY`].
const RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(30);
/// Shortest time between two fetches that tokens of unknown keys cause. Anyone can make such a token.
const MIN_EARLY_FETCH_INTERVAL: Duration = Duration::from_secs(10);

/// A key that verifies tokens, and the algorithms that it may be used with.
pub(crate) struct Key {
    /// The key id (`kid`), if the key has one.
    pub(crate) id: Option<String>,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) key: DecodingKey,
}

/// The key set at a URL, as it was fetched last.
pub(crate) struct KeySet {
    client: Client,
    url: Url,
    /// The URL as it may be logged: its user, password and query may be secrets.
    shown: String,
    refresh: Duration,
    /// The keys; `None` until the first fetch succeeds.
    held: RwLock<Option<Arc<[Key]>>>,
    /// Notified when a token names a key that the set lacks.
    wanted: Notify,
}

impl KeySet {
    /// Returns the key set at `url`, which [`KeySet::run`] fetches every `refresh`.
    ///
    /// # Errors
    /// What is wrong with the URL. The text does not contain the URL, because that may hold a password.
    pub(crate) fn new(url: &str, refresh: Duration) -> Result<Self, String> {
        let url = Url::parse(url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or("it is not an http:// or https:// URL")?;
        // Fetches are minutes apart, so no connection is kept. A redirect is not followed: it could lead anywhere, also
        // away from TLS.
        let client = Client::builder()
            .timeout(FETCH)
            .redirect(Policy::none())
            .pool_max_idle_per_host(0)
            .build()
            .map_err(reason)?;
        let shown = format!("{}{}", url.origin().ascii_serialization(), url.path());
        Ok(Self { client, url, shown, refresh, held: RwLock::default(), wanted: Notify::new() })
    }

    /// Returns the keys; `None` if no fetch has succeeded yet.
    pub(crate) fn keys(&self) -> Option<Arc<[Key]>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for an early fetch, because a token names a key that the set lacks. At most one such fetch is made per
    /// [`MIN_EARLY_FETCH_INTERVAL`].
    pub(crate) fn request_fetch(&self) {
        self.wanted.notify_one();
    }

    /// Keeps the keys current with the URL, for ever. Keys that were fetched stay in use while fetches fail.
    pub(crate) async fn run(&self, metrics: &Metrics) {
        // Success and failure are logged when they alternate, not each time.
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
                        debug!(url = %self.shown, %error, "the key set still cannot be fetched");
                    } else {
                        warn!(url = %self.shown, %error, "the key set cannot be fetched; known keys stay in use");
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
                () = wanted => heeds_from = Instant::now() + MIN_EARLY_FETCH_INTERVAL,
            }
        }
    }

    /// Fetches the set and replaces all keys by those in it. Returns how many there are.
    ///
    /// # Errors
    /// If the fetch fails, or the set holds no usable key. The keys stay as they are.
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

    /// Fetches the text of the set.
    async fn fetch(&self) -> Result<Vec<u8>, String> {
        let request = self.client.get(self.url.clone());
        let request = request.header(ACCEPT, "application/jwk-set+json, application/json");
        let mut response = request.send().await.map_err(reason)?;
        if response.status() != StatusCode::OK {
            return Err(format!("the response was {}", response.status()));
        }
        let mut set = Vec::new();
        while let Some(part) = response.chunk().await.map_err(reason)? {
            if set.len() + part.len() > MAX_SET_BYTES {
                return Err(format!("the response has more than {MAX_SET_BYTES} bytes"));
            }
            set.extend_from_slice(&part);
        }
        Ok(set)
    }
}

/// Describes an error with all its causes, without the URL.
fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    std::iter::successors(error.source(), |&cause| cause.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Reads the keys of a file.
///
/// # Errors
/// If the file cannot be read, is not a key set, holds a malformed key of a supported kind, or holds no usable key.
pub(crate) fn read_file(path: &str) -> Result<Vec<Key>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let set: JwkSet = serde_json::from_str(&text).map_err(|e| format!("not a JSON Web Key Set: {e}"))?;
    if set.keys.is_empty() {
        return Err("it has no keys".to_owned());
    }
    // A set may hold keys of other kinds, for other programs. Keys of a supported kind must be well-formed.
    let usable: Vec<Key> =
        set.keys.iter().map(read_jwk).filter_map(Result::transpose).collect::<Result<_, _>>()?;
    if usable.is_empty() {
        return Err(
            "none of its keys is of a kind that is supported (RSA, P-256, P-384, Ed25519, oct)".to_owned()
        );
    }
    Ok(usable)
}

/// Reads the keys of a set that anyone can read. Symmetric keys in it are ignored: whoever can read one can sign with
/// it. Malformed keys are ignored too (RFC 7517, 5), because nobody who runs this edge can correct the set.
///
/// # Errors
/// If the text is not a key set, or holds no usable key.
pub(crate) fn public_keys(set: &[u8]) -> Result<Vec<Key>, String> {
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

/// Reads one key. Returns `None` if it is of a kind, or for an algorithm or use, that the edge does not support.
///
/// # Errors
/// If the key is malformed, or a symmetric key is too short.
fn read_jwk(jwk: &Jwk) -> Result<Option<Key>, String> {
    // A key for encryption signs no tokens.
    if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
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
    // A key that names an algorithm must not be used with another.
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
