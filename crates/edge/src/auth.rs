//! Tokens: who asks, what for, until when.

use std::fmt;
use std::sync::Arc;

use crate::answer::time_left;
use actix_web::http::header;
use actix_web::{HttpMessage as _, HttpRequest, web};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use tutti_service::{ExposeSecret as _, Settings};

/// What a valid token says.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Claims {
    /// When it expires, seconds since 1970.
    pub(crate) exp: u64,
    /// What it may do, words separated by blanks.
    #[serde(default)]
    scope: String,
    /// The user.
    #[serde(default)]
    pub(crate) sub: String,
}

impl Claims {
    pub(crate) fn may(&self, scope: &str) -> bool {
        self.scope.split_ascii_whitespace().any(|word| word == scope)
    }
}

/// The user that a request's token names: left in its extensions where the token was asked for and is valid.
pub(crate) struct User(pub(crate) String);

/// Why a request is refused. Says nothing of the token itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no token.
    Missing,
    /// It is not valid.
    Invalid(String),
    /// It does not allow this.
    Scope(&'static str),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str(
                "a token is needed: in the Authorization header (Bearer), the cookie, or ?access_token=",
            ),
            Self::Invalid(why) => write!(f, "the token is not valid: {why}"),
            Self::Scope(scope) => write!(f, "the token's scope lacks {scope}"),
        }
    }
}

/// Checks tokens against the configured keys.
#[derive(Clone)]
pub struct Verifier(Arc<Keys>);

struct Keys {
    keys: Vec<Key>,
    cookie: String,
    audience: Option<String>,
    issuer: Option<String>,
}

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// A shorter secret can be guessed (RFC 7518, 3.2).
const MIN_SECRET_BYTES: usize = 32;

impl Verifier {
    pub(crate) fn configure(settings: &mut Settings) -> Self {
        let mut keys = Vec::new();
        if let Some(secret) =
            settings.secret("auth.hs256_secret", "secret of HS256 tokens, at least 32 bytes")
        {
            let secret = secret.expose_secret().as_bytes();
            if secret.len() < MIN_SECRET_BYTES {
                settings.mistake(format!("auth.hs256_secret must have at least {MIN_SECRET_BYTES} bytes"));
            }
            let key = DecodingKey::from_secret(secret);
            keys.push(Key { id: None, algorithms: vec![Algorithm::HS256], key });
        }
        if let Some(path) =
            settings.optional("auth.jwks_file", "file with a JSON Web Key Set, for signed tokens")
        {
            match read_jwks(&path) {
                Ok(more) => keys.extend(more),
                Err(why) => settings.mistake(format!("auth.jwks_file = {path:?}: {why}")),
            }
        }
        let cookie =
            settings.get("auth.cookie", "tutti_token".to_owned(), "cookie that may hold a token", |_| Ok(()));
        let audience = settings.optional("auth.audience", "tokens must name this audience (aud)");
        let issuer = settings.optional("auth.issuer", "tokens must be of this issuer (iss)");
        Self(Arc::new(Keys { keys, cookie, audience, issuer }))
    }

    pub(crate) fn has_keys(&self) -> bool {
        !self.0.keys.is_empty()
    }

    /// The claims of a request's token, if it has one and it allows `scope`.
    pub(crate) fn check(&self, request: &HttpRequest, scope: &'static str) -> Result<Claims, Refusal> {
        let claims = self.claims(request)?;
        if claims.may(scope) { Ok(claims) } else { Err(Refusal::Scope(scope)) }
    }

    /// The claims of a request's token, whatever it allows.
    pub(crate) fn claims(&self, request: &HttpRequest) -> Result<Claims, Refusal> {
        let claims = self.verify(&token_of(request, &self.0.cookie).ok_or(Refusal::Missing)?)?;
        if !claims.sub.is_empty() {
            request.extensions_mut().insert(User(claims.sub.clone()));
        }
        Ok(claims)
    }

    fn verify(&self, token: &str) -> Result<Claims, Refusal> {
        let invalid = |e: jsonwebtoken::errors::Error| Refusal::Invalid(kind_of(&e));
        let header = decode_header(token).map_err(invalid)?;
        let fits = |key: &&Key| {
            key.algorithms.contains(&header.alg)
                && (header.kid.is_none() || key.id.is_none() || key.id == header.kid)
        };
        let mut why = Refusal::Invalid("no key for it".to_owned());
        for key in self.0.keys.iter().filter(fits) {
            let mut validation = Validation::new(header.alg);
            validation.leeway = 0;
            validation.validate_nbf = true;
            match &self.0.audience {
                Some(audience) => validation.set_audience(&[audience]),
                None => validation.validate_aud = false,
            }
            // The library checks these where they are there, and passes over what lacks them.
            let audience = self.0.audience.iter().map(|_| "aud");
            let issuer = self.0.issuer.iter().map(|_| "iss");
            validation.set_required_spec_claims(
                &["exp"].into_iter().chain(audience).chain(issuer).collect::<Vec<_>>(),
            );
            if let Some(issuer) = &self.0.issuer {
                validation.set_issuer(&[issuer]);
            }
            match decode::<Claims>(token, &key.key, &validation) {
                // The library takes a token for valid until the end of the second.
                Ok(decoded) if time_left(decoded.claims.exp).is_zero() => {
                    return Err(Refusal::Invalid("expired".to_owned()));
                }
                Ok(decoded) => return Ok(decoded.claims),
                Err(error) => why = invalid(error),
            }
        }
        Err(why)
    }
}

/// A request's token: from the header, else the query, since EventSource cannot set headers, else the
/// cookie: what was given with this request wins over what the browser keeps.
pub(crate) fn token_of(request: &HttpRequest, cookie: &str) -> Option<String> {
    let bearer = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim().to_owned());
    bearer
        .or_else(|| query_of(request, "access_token"))
        .or_else(|| request.cookie(cookie).map(|cookie| cookie.value().to_owned()))
}

/// The value of one parameter of the query.
pub(crate) fn query_of(request: &HttpRequest, name: &str) -> Option<String> {
    let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string()).ok()?;
    pairs.into_inner().into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// The kind of an error, without what the token held.
pub(crate) fn kind_of(error: &jsonwebtoken::errors::Error) -> String {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::ExpiredSignature => "expired",
        ErrorKind::ImmatureSignature => "not valid yet",
        ErrorKind::InvalidSignature => "wrong signature",
        ErrorKind::InvalidAudience => "another audience",
        ErrorKind::InvalidIssuer => "another issuer",
        ErrorKind::MissingRequiredClaim(_) => "a claim is missing (exp is needed)",
        _ => "malformed, or of an algorithm that is not accepted",
    }
    .to_owned()
}

fn read_jwks(path: &str) -> Result<Vec<Key>, String> {
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

/// One key, if it is of a kind and for an algorithm that we check.
fn read_jwk(jwk: &Jwk) -> Result<Option<Key>, String> {
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
