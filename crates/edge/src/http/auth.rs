//! Tokens: where a request may carry one, and whether it is valid and grants what the request needs.

use std::sync::Arc;
use std::time::Duration;

use crate::http::claims::Claims;
use crate::http::issuer_keys::{self, Key, KeySet, MIN_SECRET_BYTES};
use crate::http::query::query_of;
use crate::http::refusal::Refusal;
use crate::metrics::Metrics;
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::{HttpMessage as _, HttpRequest};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use tutti_service::{ExposeSecret as _, Settings};

/// The user that a request's token names. It is in the extensions of a request whose token was checked and is valid, so
/// that [`open`](crate::http::open::open) counts the stream for the user.
pub(crate) struct User(pub(crate) String);

/// Checks tokens against the configured keys. Clones share the keys.
#[derive(Clone)]
pub struct Verifier(Arc<Keys>);

struct Keys {
    /// Keys from the configuration.
    keys: Vec<Key>,
    /// Keys from a URL.
    set: Option<KeySet>,
    /// Name of the cookie that may hold a token.
    cookie: String,
    audience: Option<String>,
    issuer: Option<String>,
}

impl Verifier {
    /// Reads the settings of tokens, and the file with a key set if there is one.
    pub(crate) fn configure(settings: &mut Settings) -> Self {
        let mut keys = Vec::new();
        if let Some(secret) = settings
            .secret("auth.hs256_secret", "secret that HS256 tokens are signed with, at least 32 bytes")
        {
            let secret = secret.expose_secret().as_bytes();
            if secret.len() < MIN_SECRET_BYTES {
                settings.mistake(format!("auth.hs256_secret must have at least {MIN_SECRET_BYTES} bytes"));
            }
            let key = DecodingKey::from_secret(secret);
            keys.push(Key { id: None, algorithms: vec![Algorithm::HS256], key });
        }
        if let Some(path) =
            settings.optional("auth.jwks_file", "file with a JSON Web Key Set to check tokens with")
        {
            match issuer_keys::read_file(&path) {
                Ok(more) => keys.extend(more),
                Err(why) => settings.mistake(format!("auth.jwks_file = {path:?}: {why}")),
            }
        }
        let url = settings.url(
            "auth.jwks_url",
            "",
            "URL of a JSON Web Key Set to check tokens with, fetched periodically",
        );
        let refresh = settings.number(
            "auth.jwks_refresh_seconds",
            300u64,
            10..=86_400,
            "seconds between two fetches of auth.jwks_url; a token of an unknown key causes an earlier fetch",
        );
        let set = match url.expose_secret().trim() {
            "" => None,
            url => KeySet::new(url, Duration::from_secs(refresh))
                .inspect_err(|why| settings.mistake(format!("auth.jwks_url: {why}")))
                .ok(),
        };
        let cookie =
            settings.get("auth.cookie", "tutti_token".to_owned(), "name of the cookie that may hold a token");
        let audience = settings.optional("auth.audience", "audience (aud) that tokens must name");
        let issuer = settings.optional("auth.issuer", "issuer (iss) that tokens must name");
        Self(Arc::new(Keys { keys, set, cookie, audience, issuer }))
    }

    /// Whether any keys are configured, or a URL to fetch them from.
    pub(crate) fn has_keys(&self) -> bool {
        !self.0.keys.is_empty() || self.0.set.is_some()
    }

    /// Keeps the keys current with `auth.jwks_url`, for ever. Returns at once if there is no URL.
    pub(crate) async fn follow_keys(&self, metrics: &Metrics) {
        if let Some(set) = &self.0.set {
            set.run(metrics).await;
        }
    }

    /// Returns the claims of a request's token, which must grant `scope`.
    ///
    /// # Errors
    /// If there is no token, it is not valid, or it does not grant the scope.
    pub(crate) fn check(&self, request: &HttpRequest, scope: &'static str) -> Result<Claims, Refusal> {
        let claims = self.claims(request)?;
        if claims.may(scope) { Ok(claims) } else { Err(Refusal::Scope(scope)) }
    }

    /// Returns the claims of a request's token, whatever it grants, and notes its user in the request's extensions.
    ///
    /// # Errors
    /// If there is no token, or it is not valid.
    pub(crate) fn claims(&self, request: &HttpRequest) -> Result<Claims, Refusal> {
        let claims = self.verify(&token_of(request, &self.0.cookie).ok_or(Refusal::Missing)?)?;
        if !claims.sub.is_empty() {
            request.extensions_mut().insert(User(claims.sub.clone()));
        }
        Ok(claims)
    }

    /// Returns the claims of a token. A key is tried if it is for the algorithm in the header, and has the id (`kid`)
    /// in the header where both name one.
    ///
    /// # Errors
    /// [`Refusal::Unchecked`] if the right key may be in a set that has not been fetched yet, else why the token is not
    /// valid.
    fn verify(&self, token: &str) -> Result<Claims, Refusal> {
        let invalid = |e: jsonwebtoken::errors::Error| Refusal::Invalid(kind_of(&e));
        let header = header_of(token).map_err(Refusal::Invalid)?;
        let fits = |key: &&Key| {
            key.algorithms.contains(&header.alg)
                && (header.kid.is_none() || key.id.is_none() || key.id == header.kid)
        };
        let fetched = self.0.set.as_ref().and_then(KeySet::keys);
        let keys = || self.0.keys.iter().chain(fetched.as_deref().unwrap_or_default());
        let mut why = Refusal::Invalid("no key fits it".to_owned());
        for key in keys().filter(fits) {
            let mut validation = Validation::new(header.alg);
            // The library rounds times to seconds: see `Claims::check_times`.
            validation.validate_exp = false;
            match &self.0.audience {
                Some(audience) => validation.set_audience(&[audience]),
                None => validation.validate_aud = false,
            }
            // The library checks these claims only where they are present, unless they are required.
            let audience = self.0.audience.iter().map(|_| "aud");
            let issuer = self.0.issuer.iter().map(|_| "iss");
            validation.set_required_spec_claims(&audience.chain(issuer).collect::<Vec<_>>());
            if let Some(issuer) = &self.0.issuer {
                validation.set_issuer(&[issuer]);
            }
            match decode::<Claims>(token, &key.key, &validation) {
                Ok(decoded) => {
                    decoded.claims.check_times().map_err(|why| Refusal::Invalid(why.to_owned()))?;
                    return Ok(decoded.claims);
                }
                Err(error) => why = invalid(error),
            }
        }
        let symmetric = matches!(header.alg, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512);
        let known = header.kid.is_some() && keys().any(|key| key.id == header.kid);
        match &self.0.set {
            // The set at the URL may have the right key by now. It never has a symmetric one.
            Some(set) if !symmetric && !known => {
                if header.kid.is_some() {
                    set.request_fetch();
                }
                Err(if fetched.is_some() { why } else { Refusal::Unchecked })
            }
            _ => Err(why),
        }
    }
}

/// Returns a request's token: from the header `Authorization`, else from `access_token` in the query, because
/// EventSource cannot set headers, else from the cookie. A token given with this request wins over one that the browser
/// keeps. The cookie of a [`Forged`] request is ignored.
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

/// Marks a request that may change something and was made by a page of an origin that is not allowed. The cookie of
/// such a request is ignored.
pub(crate) struct Forged;

impl Forged {
    /// Whether a request is forged: it is of an unsafe method and has an `Origin` that is neither this edge nor one of
    /// `origins`. `Sec-Fetch-Site` decides where it is present. Old browsers do not send it, and no browser sends it to
    /// a host without TLS; then `Origin` is compared with `Host`.
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

/// Returns a token's header.
///
/// # Errors
/// If the header is malformed, or has `crit`: that names extensions which a receiver must understand (RFC 7515,
/// 4.1.11), and the edge supports none.
pub(crate) fn header_of(token: &str) -> Result<Header, String> {
    let header = decode_header(token).map_err(|e| kind_of(&e))?;
    match header.crit {
        None => Ok(header),
        Some(_) => Err("its header names extensions in crit, and none is supported".to_owned()),
    }
}

/// Returns what kind of error it is, in words that contain nothing of the token.
pub(crate) fn kind_of(error: &jsonwebtoken::errors::Error) -> String {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::ExpiredSignature => "expired",
        ErrorKind::InvalidSignature => "wrong signature",
        ErrorKind::InvalidAudience => "another audience",
        ErrorKind::InvalidIssuer => "another issuer",
        // The name is the one that was required, not a part of the token.
        ErrorKind::MissingRequiredClaim(name) => return format!("{name} is missing"),
        _ => "malformed, or signed with an algorithm that is not accepted",
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
    fn a_refusal_says_what_is_wrong_with_the_token() {
        let refusal = |claims: Value| match verify(&Header::default(), &claims) {
            Err(Refusal::Invalid(why)) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(refusal(json!({"exp": 1})), "expired");
        assert_eq!(refusal(json!({"exp": 4_102_444_800u64, "nbf": 4_102_444_799u64})), "not valid yet");
        assert!(refusal(json!({})).starts_with("exp is missing"));
        assert!(refusal(json!({"exp": "soon"})).starts_with("malformed"));
    }

    #[test]
    fn a_token_that_must_be_understood_as_nobody_here_does_is_refused() {
        let claims = json!({"exp": 4_102_444_800u64});
        assert!(verify(&Header::default(), &claims).is_ok());
        for crit in [&["b64"][..], &["exp"], &[]] {
            let crit = Some(crit.iter().map(|name| (*name).to_owned()).collect());
            let refused = verify(&Header { crit, ..Header::default() }, &claims);
            assert!(matches!(&refused, Err(Refusal::Invalid(why)) if why.contains("crit")), "{refused:?}");
        }
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
