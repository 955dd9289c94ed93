//! Tokens: who asks, what for, until when.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::http::jwks::{self, Key, KeySet, MIN_SECRET_BYTES};
use crate::http::query::query_of;
use crate::metrics::Metrics;
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::{HttpMessage as _, HttpRequest};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use serde::{Deserialize, Deserializer};
use tutti_service::{ExposeSecret as _, Settings};

/// What a valid token says.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Claims {
    /// When it expires; a valid token says so.
    exp: Option<NumericDate>,
    /// Since when it is valid.
    nbf: Option<NumericDate>,
    /// What it may do.
    #[serde(default, deserialize_with = "null_is_absent")]
    scope: Words,
    /// The user.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub(crate) sub: String,
}

fn null_is_absent<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A time as the time since 1970. In a token it is a number of seconds, which may have a fraction (RFC 7519, 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NumericDate(Duration);

impl NumericDate {
    /// A whole number of seconds since 1970.
    pub(crate) const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    fn now() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// Returns how long it is until this time.
    pub(crate) fn time_left(self) -> Duration {
        // A century is for ever, and no instant overflows by it.
        self.0.saturating_sub(Self::now().0).min(Duration::from_secs(3_155_760_000))
    }
}

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        // What is before 1970 is as long over, and what no clock will show is as far away.
        Ok(Self(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)))
    }
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
    /// Returns how long the token is valid.
    pub(crate) fn time_left(&self) -> Duration {
        self.exp.map(NumericDate::time_left).unwrap_or_default()
    }

    /// Checks that the token is valid now.
    fn check_times(&self) -> Result<(), Refusal> {
        let invalid = |why: &str| Err(Refusal::Invalid(why.to_owned()));
        match self.exp {
            None => invalid("exp is missing: it must say when it expires"),
            Some(_) if self.time_left().is_zero() => invalid("expired"),
            Some(_) if self.nbf.is_some_and(|nbf| nbf > NumericDate::now()) => invalid("not valid yet"),
            Some(_) => Ok(()),
        }
    }

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
        let refresh = settings.number(
            "auth.jwks_refresh_seconds",
            300u64,
            10..=86_400,
            "seconds between two fetches of that set; a token of an unknown key has it fetched before",
        );
        let set = match url.expose_secret().trim() {
            "" => None,
            url => KeySet::new(url, Duration::from_secs(refresh))
                .inspect_err(|why| settings.mistake(format!("auth.jwks_url: {why}")))
                .ok(),
        };
        let cookie = settings.get("auth.cookie", "tutti_token".to_owned(), "cookie that may hold a token");
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
        let header = header_of(token).map_err(Refusal::Invalid)?;
        let fits = |key: &&Key| {
            key.algorithms.contains(&header.alg)
                && (header.kid.is_none() || key.id.is_none() || key.id == header.kid)
        };
        let fetched = self.0.set.as_ref().and_then(KeySet::keys);
        let keys = || self.0.keys.iter().chain(fetched.as_deref().unwrap_or_default());
        let mut why = Refusal::Invalid("no key for it".to_owned());
        for key in keys().filter(fits) {
            let mut validation = Validation::new(header.alg);
            // The library rounds times to seconds.
            validation.validate_exp = false;
            match &self.0.audience {
                Some(audience) => validation.set_audience(&[audience]),
                None => validation.validate_aud = false,
            }
            // The library checks these where they are there, and passes over what lacks them.
            let audience = self.0.audience.iter().map(|_| "aud");
            let issuer = self.0.issuer.iter().map(|_| "iss");
            validation.set_required_spec_claims(&audience.chain(issuer).collect::<Vec<_>>());
            if let Some(issuer) = &self.0.issuer {
                validation.set_issuer(&[issuer]);
            }
            match decode::<Claims>(token, &key.key, &validation) {
                Ok(decoded) => {
                    decoded.claims.check_times()?;
                    return Ok(decoded.claims);
                }
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

/// A token's header, of which nothing must be understood that is not (RFC 7515, 4.1.11).
pub(crate) fn header_of(token: &str) -> Result<Header, String> {
    let header = decode_header(token).map_err(|e| kind_of(&e))?;
    match header.crit {
        None => Ok(header),
        Some(_) => Err("it names in crit what must be understood here, and nothing is".to_owned()),
    }
}

/// The kind of an error, without what the token held.
pub(crate) fn kind_of(error: &jsonwebtoken::errors::Error) -> String {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::ExpiredSignature => "expired",
        ErrorKind::InvalidSignature => "wrong signature",
        ErrorKind::InvalidAudience => "another audience",
        ErrorKind::InvalidIssuer => "another issuer",
        // By the name that was asked for, not by anything of the token.
        ErrorKind::MissingRequiredClaim(name) => return format!("{name} is missing"),
        _ => "malformed, or of an algorithm that is not accepted",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{EncodingKey, encode};
    use serde_json::{Value, json};

    const SECRET: &[u8] = b"a-secret-of-these-tests-and-of-nothing-else";

    fn verify(header: &Header, claims: &Value) -> Result<Claims, Refusal> {
        let key = Key { id: None, algorithms: vec![Algorithm::HS256], key: DecodingKey::from_secret(SECRET) };
        let (cookie, audience, issuer) = (String::new(), None, None);
        let verifier = Verifier(Arc::new(Keys { keys: vec![key], set: None, cookie, audience, issuer }));
        let token = encode(header, claims, &EncodingKey::from_secret(SECRET)).unwrap();
        verifier.verify(&token)
    }

    #[test]
    fn times_of_a_token_may_have_fractions_and_are_kept_to_them() {
        let now = NumericDate::now().0.as_secs_f64();
        let verify = |claims| verify(&Header::default(), &claims);
        let left =
            verify(json!({"exp": now + 3600.75, "nbf": now - 0.25, "iat": now - 0.5})).unwrap().time_left();
        assert!((3540.0..3600.75).contains(&left.as_secs_f64()), "{left:?}");
        for exp in [json!(now.ceil() + 3600.0), json!(now as u64 + 3600), json!(1e300), json!(u64::MAX)] {
            assert!(verify(json!({ "exp": exp })).is_ok(), "{exp}");
        }
        let refusal = |claims| match verify(claims) {
            Err(Refusal::Invalid(why)) => why,
            other => panic!("{other:?}"),
        };
        for exp in [now - 0.001, now - 1.0, 0.5, -1.5] {
            assert_eq!(refusal(json!({ "exp": exp })), "expired", "{exp}");
        }
        assert_eq!(refusal(json!({"exp": now + 3600.0, "nbf": now + 60.5})), "not valid yet");
        for none in [json!({}), json!({"exp": null})] {
            assert_eq!(refusal(none), "exp is missing: it must say when it expires");
        }
        for other in [json!({"exp": "soon"}), json!({"exp": now + 60.0, "nbf": [0]})] {
            assert!(refusal(other).starts_with("malformed"));
        }
    }

    #[test]
    fn a_token_that_must_be_understood_as_nobody_here_does_is_refused() {
        let claims = json!({"exp": NumericDate::now().0.as_secs() + 3600});
        assert!(verify(&Header::default(), &claims).is_ok());
        for crit in [&["b64"][..], &["exp"], &[]] {
            let crit = Some(crit.iter().map(|name| (*name).to_owned()).collect());
            let refused = verify(&Header { crit, ..Header::default() }, &claims);
            assert!(matches!(&refused, Err(Refusal::Invalid(why)) if why.contains("crit")), "{refused:?}");
        }
    }

    #[test]
    fn claims_that_are_null_are_absent() {
        let claims: Claims = serde_json::from_str(r#"{"exp":1,"scope":null,"sub":null}"#).unwrap();
        assert_eq!((claims.may("a"), claims.sub.as_str()), (false, ""));
    }

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
