//! Tokens: who asks, what for, until when.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::answer::time_left;
use crate::jwks::{self, Key, KeySet, MIN_SECRET_BYTES};
use crate::metrics::Metrics;
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::{HttpMessage as _, HttpRequest, web};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use tutti_service::{ExposeSecret as _, Settings};

/// What a valid token says.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Claims {
    /// When it expires, seconds since 1970.
    pub(crate) exp: u64,
    /// What it may do.
    #[serde(default)]
    scope: Words,
    /// The user.
    #[serde(default)]
    pub(crate) sub: String,
}

/// Words in one text, separated by blanks (RFC 8693), or a list of them, as some issuers write.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Words {
    Text(String),
    List(Vec<String>),
}

impl Default for Words {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Claims {
    pub(crate) fn may(&self, scope: &str) -> bool {
        match &self.scope {
            Words::Text(text) => text.split_ascii_whitespace().any(|word| word == scope),
            Words::List(words) => words.iter().any(|word| word == scope),
        }
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
    /// The keys that it may be signed with have not been fetched yet.
    Unchecked,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str(
                "a token is needed: in the Authorization header (Bearer), the cookie, or ?access_token=",
            ),
            Self::Invalid(why) => write!(f, "the token is not valid: {why}"),
            Self::Scope(scope) => write!(f, "the token's scope lacks {scope}"),
            Self::Unchecked => f.write_str("the keys to check tokens with could not be fetched yet"),
        }
    }
}

/// Checks tokens against the configured keys.
#[derive(Clone)]
pub struct Verifier(Arc<Keys>);

struct Keys {
    /// Of the configuration.
    keys: Vec<Key>,
    /// From a URL.
    set: Option<KeySet>,
    cookie: String,
    audience: Option<String>,
    issuer: Option<String>,
}

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
            match jwks::read_file(&path) {
                Ok(more) => keys.extend(more),
                Err(why) => settings.mistake(format!("auth.jwks_file = {path:?}: {why}")),
            }
        }
        let url = settings.url("auth.jwks_url", "", "URL of a JSON Web Key Set, fetched again and again");
        let refresh = settings.get(
            "auth.jwks_refresh_seconds",
            300u64,
            "seconds between two fetches of that set; a token of an unknown key has it fetched before",
            |n| if (10..=86_400).contains(n) { Ok(()) } else { Err("must be 10 to 86400") },
        );
        let set = match url.expose_secret().trim() {
            "" => None,
            url => KeySet::new(url, Duration::from_secs(refresh))
                .inspect_err(|why| settings.mistake(format!("auth.jwks_url: {why}")))
                .ok(),
        };
        let cookie =
            settings.get("auth.cookie", "tutti_token".to_owned(), "cookie that may hold a token", |_| Ok(()));
        let audience = settings.optional("auth.audience", "tokens must name this audience (aud)");
        let issuer = settings.optional("auth.issuer", "tokens must be of this issuer (iss)");
        Self(Arc::new(Keys { keys, set, cookie, audience, issuer }))
    }

    /// Whether any are configured.
    pub(crate) fn has_keys(&self) -> bool {
        !self.0.keys.is_empty() || self.0.set.is_some()
    }

    /// Keeps the keys as they are at the URL, for ever, if there is one.
    pub(crate) async fn follow_keys(&self, metrics: &Metrics) {
        if let Some(set) = &self.0.set {
            set.run(metrics).await;
        }
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
        let fetched = self.0.set.as_ref().and_then(KeySet::keys);
        let keys = || self.0.keys.iter().chain(fetched.as_deref().unwrap_or_default());
        let mut why = Refusal::Invalid("no key for it".to_owned());
        for key in keys().filter(fits) {
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
        let symmetric = matches!(header.alg, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512);
        let known = header.kid.is_some() && keys().any(|key| key.id == header.kid);
        match &self.0.set {
            // The right key may be in the set by now. A symmetric one never is.
            Some(set) if !symmetric && !known => {
                if header.kid.is_some() {
                    set.ask_anew();
                }
                Err(if fetched.is_some() { why } else { Refusal::Unchecked })
            }
            _ => Err(why),
        }
    }
}

/// A request's token: from the header, else the query, since EventSource cannot set headers, else the
/// cookie: what was given with this request wins over what the browser keeps. The cookie counts for nothing
/// where a page of a stranger has the browser send it to change something.
pub(crate) fn token_of(request: &HttpRequest, cookie: &str) -> Option<String> {
    let bearer = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim().to_owned());
    bearer.or_else(|| query_of(request, "access_token")).or_else(|| {
        let cookie = request.cookie(cookie).filter(|_| !request.extensions().contains::<Forged>());
        cookie.map(|cookie| cookie.value().to_owned())
    })
}

/// Marks a request that may change something and was made by a page that may not ask here.
pub(crate) struct Forged;

impl Forged {
    /// Whether a request is one. `Sec-Fetch-Site` tells by itself; browsers that do not send it, and all of
    /// them to a host without TLS, send `Origin`.
    pub(crate) fn is(method: &Method, headers: &HeaderMap, origins: &[String]) -> bool {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let Some(origin) = headers.get(header::ORIGIN) else { return false };
        if method.is_safe() || origins.iter().any(|allowed| origin == allowed.as_str()) {
            return false;
        }
        match text(header::HeaderName::from_static("sec-fetch-site")) {
            Some(site) => site != "same-origin",
            None => {
                let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
                origin.map(|(_, host)| host) != text(header::HOST)
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_a_stranger_is_told_from_ours() {
        let headers = |pairs: &[(&'static str, &str)]| {
            let pair = |(name, value): &(&'static str, &str)| {
                (header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
            };
            pairs.iter().map(pair).collect::<HeaderMap>()
        };
        let origins = ["https://app.example".to_owned()];
        let forged = |method: &Method, pairs| Forged::is(method, &headers(pairs), &origins);
        let evil = [("host", "edge.example"), ("origin", "https://evil.example")];
        assert!(forged(&Method::POST, &evil) && forged(&Method::DELETE, &evil));
        assert!(!forged(&Method::GET, &evil), "it changes nothing, and the answer is hidden from the page");
        assert!(forged(&Method::POST, &[("host", "edge.example"), ("origin", "null")]));
        let other_site =
            [("host", "inner:8080"), ("origin", "https://a.example"), ("sec-fetch-site", "same-site")];
        assert!(forged(&Method::POST, &other_site), "another host of the same domain");
        for fine in [
            &[("host", "edge.example")][..],
            &[("host", "edge.example"), ("origin", "https://edge.example")],
            &[("host", "edge.example"), ("origin", "https://app.example"), ("sec-fetch-site", "cross-site")],
            &[("host", "inner:8080"), ("origin", "https://edge.example"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(!forged(&Method::POST, fine), "{fine:?}");
        }
    }
}
