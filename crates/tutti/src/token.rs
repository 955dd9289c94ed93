//! Tokens for development.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

/// The secret that `tutti up` checks tokens with, unless it is told another. Everybody knows it, so it is good for
/// nothing but development on one's own machine.
pub const DEVELOPMENT_SECRET: &str = "tutti-development-secret-known-to-all";

/// Makes an HS256 token of a user that allows `scope` for this time.
///
/// # Errors
/// If the token cannot be signed.
pub fn sign(secret: &str, sub: &str, scope: &str, ttl: Duration) -> anyhow::Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let claims = json!({ "sub": sub, "scope": scope, "iat": now, "exp": now + ttl.as_secs() });
    encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes()))
        .context("signing the token")
}
