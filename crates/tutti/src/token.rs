//! Tokens for development.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

/// What `tutti up` checks tokens with unless it is told another: known to all, so good for nothing
/// but development on one's own machine.
pub const DEVELOPMENT_SECRET: &str = "tutti-development-secret-known-to-all";

/// An HS256 token of a user that allows `scope`, for so long.
///
/// # Errors
/// If it cannot be signed.
pub fn sign(secret: &str, sub: &str, scope: &str, ttl: Duration) -> anyhow::Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let claims = json!({ "sub": sub, "scope": scope, "iat": now, "exp": now + ttl.as_secs() });
    encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes()))
        .context("signing the token")
}
