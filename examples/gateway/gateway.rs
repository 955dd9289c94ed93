//! A shop's gateway: who has a valid pass of the waiting room comes in.
//!
//! ```sh
//! PORT=8091 JWKS=http://127.0.0.1:8080/.well-known/jwks.json ROOM=demo \
//!     cargo run --package tutti --example gateway
//! ```
//!
//! `/verify` answers 204 or 401, as nginx's `auth_request` wants it; any other path is the shop itself.
//! `WAITING` is where those without a pass are told to go. `gateway.mjs` does the same. A shop has none
//! of Tutti's crates, and this uses none.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

/// The audience of a pass.
const AUDIENCE: &str = "tutti-pass";
/// A pass has some 400 characters.
const MAX_CHARS: usize = 4096;
/// The clock here may be behind the waiting room's by so many seconds.
const MAX_SKEW: u64 = 60;
/// Keys are fetched again after so long, so that a key that was withdrawn is.
const FRESH: Duration = Duration::from_secs(60);
/// A pass of an unknown key has them fetched again, but not more often than this.
const APART: Duration = Duration::from_secs(2);
/// A fetch takes no longer than this.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The waiting room's public keys, by key id.
type Keys = HashMap<String, DecodingKey>;

/// What a pass says, as far as a shop needs it.
struct Claims {
    room: String,
    ticket: u64,
    iat: u64,
    exp: u64,
}

impl Claims {
    fn of(claims: &Value) -> Option<Self> {
        // The audience as one text: a list that has the right one among others is not taken.
        claims["aud"].as_str().filter(|aud| *aud == AUDIENCE)?;
        Some(Self {
            room: claims["room"].as_str()?.to_owned(),
            ticket: claims["ticket"].as_u64()?,
            iat: claims["iat"].as_u64()?,
            exp: claims["exp"].as_u64()?,
        })
    }
}

/// Why somebody does not come in.
#[derive(Clone, Copy)]
enum Refused {
    /// There is no valid pass; why.
    Because(&'static str),
    /// The pass names a key that is not known.
    UnknownKey,
    /// The keys could not be had yet.
    NoKeys,
}

/// What a pass says, if it is valid now, for this room, by these keys.
fn verify_pass(pass: &str, keys: &Keys, room: &str) -> Result<Claims, Refused> {
    if pass.len() > MAX_CHARS {
        return Err(Refused::Because("malformed"));
    }
    // Nothing of the header is believed: it only says which of the keys to try.
    let header = decode_header(pass).map_err(|_| Refused::Because("malformed"))?;
    if header.alg != Algorithm::EdDSA || header.crit.is_some() {
        return Err(Refused::Because("algorithm"));
    }
    let key = header.kid.and_then(|kid| keys.get(&kid)).ok_or(Refused::UnknownKey)?;
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.leeway = 0;
    // A ticket's own token is signed with the same keys, and is valid for days: it is no pass.
    validation.set_audience(&[AUDIENCE]);
    validation.set_required_spec_claims(&["exp", "aud"]);
    let valid = decode::<Value>(pass, key, &validation).map_err(|e| Refused::Because(word(&e)))?;
    let claims = Claims::of(&valid.claims).ok_or(Refused::Because("malformed"))?;
    if claims.room != room {
        return Err(Refused::Because("room"));
    }
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(u64::MAX, |since| since.as_secs());
    if claims.exp <= now {
        return Err(Refused::Because("expired"));
    }
    if claims.iat > now.saturating_add(MAX_SKEW) {
        return Err(Refused::Because("not_yet"));
    }
    Ok(claims)
}

fn word(error: &jsonwebtoken::errors::Error) -> &'static str {
    match error.kind() {
        ErrorKind::InvalidSignature => "signature",
        ErrorKind::InvalidAudience => "audience",
        ErrorKind::ExpiredSignature => "expired",
        _ => "malformed",
    }
}

/// The pass that a request brings: in `X-Pass`, else the cookie `pass`, else as a bearer token.
fn pass_of(headers: &HeaderMap) -> Option<&str> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(pass) = text(HeaderName::from_static("x-pass")).filter(|pass| !pass.is_empty()) {
        return Some(pass);
    }
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let cookie = cookies
        .flat_map(|cookies| cookies.split(';'))
        .filter_map(|cookie| cookie.split_once('='))
        .filter(|(name, _)| name.trim() == "pass")
        .map(|(_, value)| value.trim().trim_matches('"'))
        .find(|value| !value.is_empty());
    cookie.or_else(|| {
        let (scheme, token) = text(header::AUTHORIZATION)?.split_once(' ')?;
        let token = token.trim();
        (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
    })
}

struct Gateway {
    room: String,
    waiting: String,
    jwks: String,
    client: Client,
    /// `None` until they were first had.
    keys: RwLock<Option<Arc<Keys>>>,
    /// When fetching them was last tried.
    tried: Mutex<Option<Instant>>,
}

impl Gateway {
    /// What the pass of a request says.
    async fn check(&self, headers: &HeaderMap) -> Result<Claims, Refused> {
        let pass = pass_of(headers).ok_or(Refused::Because("no_pass"))?;
        match self.verify(pass) {
            Err(Refused::UnknownKey | Refused::NoKeys) => {
                self.refresh().await;
                self.verify(pass)
            }
            checked => checked,
        }
    }

    fn verify(&self, pass: &str) -> Result<Claims, Refused> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        match keys {
            Some(keys) => verify_pass(pass, &keys, &self.room),
            // What is no pass by any key is told so also without keys.
            None => verify_pass(pass, &Keys::new(), &self.room).map_err(|refused| match refused {
                Refused::UnknownKey => Refused::NoKeys,
                other => other,
            }),
        }
    }

    /// Fetches the keys, unless that was tried just now. One fetches, others wait for what it gets;
    /// where it gets none, those from before hold.
    async fn refresh(&self) {
        let mut tried = self.tried.lock().await;
        if tried.is_some_and(|at| at.elapsed() < APART) {
            return;
        }
        // Before the fetch: this is dropped where it stands once its client goes away.
        *tried = Some(Instant::now());
        match self.fetch().await {
            Ok(keys) => *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(keys)),
            Err(e) => eprintln!("the keys at {}: {e}", self.jwks),
        }
    }

    async fn fetch(&self) -> Result<Keys, Box<dyn Error + Send + Sync>> {
        let response = self.client.get(&self.jwks).send().await?.error_for_status()?;
        let set: JwkSet = serde_json::from_slice(&response.bytes().await?)?;
        let mut keys = Keys::new();
        for jwk in &set.keys {
            let ed25519 = matches!(
                &jwk.algorithm,
                AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519
            );
            if let (true, Some(kid), Ok(key)) = (ed25519, &jwk.common.key_id, DecodingKey::from_jwk(jwk)) {
                keys.insert(kid.clone(), key);
            }
        }
        if keys.is_empty() { Err("no Ed25519 key is among them".into()) } else { Ok(keys) }
    }

    fn refuse(&self, refused: Refused) -> Response {
        let (status, name, value, body) = match refused {
            // Nobody is let in, and nobody is sent back to the waiting room either.
            Refused::NoKeys => {
                let body = json!({"refused": "no_keys"});
                (StatusCode::SERVICE_UNAVAILABLE, header::RETRY_AFTER, "2", body)
            }
            Refused::UnknownKey | Refused::Because(_) => {
                let why = if let Refused::Because(why) = refused { why } else { "unknown_key" };
                let body = json!({"refused": why, "waitingRoom": self.waiting});
                (StatusCode::UNAUTHORIZED, header::WWW_AUTHENTICATE, "Bearer", body)
            }
        };
        let headers =
            [(name, value), (header::CACHE_CONTROL, "no-store"), (header::CONTENT_TYPE, "application/json")];
        (status, headers, format!("{body}\n")).into_response()
    }
}

/// For nginx: whether the request may pass, and whose it is.
async fn verify(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response {
    match gateway.check(&headers).await {
        Ok(claims) => (StatusCode::NO_CONTENT, admitted(&claims)).into_response(),
        Err(refused) => gateway.refuse(refused),
    }
}

/// The shop.
async fn shop(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response {
    match gateway.check(&headers).await {
        Ok(claims) => (admitted(&claims), format!("welcome, ticket {}\n", claims.ticket)).into_response(),
        Err(refused) => gateway.refuse(refused),
    }
}

fn admitted(claims: &Claims) -> [(&'static str, String); 2] {
    [("x-ticket", claims.ticket.to_string()), ("cache-control", "no-store".to_owned())]
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = setting("PORT", "8091").parse::<u16>().map_err(|e| format!("PORT: {e}"))?;
    let gateway = Arc::new(Gateway {
        room: setting("ROOM", "demo"),
        waiting: setting("WAITING", "/waiting"),
        jwks: setting("JWKS", "http://127.0.0.1:8080/.well-known/jwks.json"),
        client: Client::builder().timeout(TIMEOUT).build()?,
        keys: RwLock::default(),
        tried: Mutex::default(),
    });
    let refreshing = gateway.clone();
    tokio::spawn(async move {
        loop {
            refreshing.refresh().await;
            sleep(FRESH).await;
        }
    });
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    eprintln!("room {}: listening on http://{}", gateway.room, listener.local_addr()?);
    let app = Router::new().route("/verify", any(verify)).fallback(shop).with_state(gateway);
    axum::serve(listener, app).await?;
    Ok(())
}
