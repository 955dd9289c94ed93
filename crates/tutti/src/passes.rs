//! Keys that passes are signed with, and what a shop does with a pass: verify it.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use tutti_model::room::{Claims, PASS_AUDIENCE};

/// What precedes the 32 bytes of an Ed25519 private key in PKCS #8 (RFC 8410, section 7).
const PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// A new Ed25519 private key, as `passes.key_file` wants it: PEM, PKCS #8.
pub fn new_key() -> String {
    let secret: [u8; 32] = rand::random();
    let der = [&PKCS8[..], &secret].concat();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der))
}

/// What a pass says, if it is valid now, for this room, by the keys at `jwks`: a URL, as
/// `https://example.org/.well-known/jwks.json`, or a file.
///
/// # Errors
/// Why it is not valid, or why the keys could not be had.
pub async fn verify(pass: &str, room: &str, jwks: &str) -> anyhow::Result<Claims> {
    let text = if jwks.starts_with("http://") || jwks.starts_with("https://") {
        let response = reqwest::get(jwks).await.with_context(|| format!("fetching {jwks}"))?;
        ensure!(response.status().is_success(), "{jwks} answered {}", response.status());
        response.text().await.with_context(|| format!("fetching {jwks}"))?
    } else {
        std::fs::read_to_string(Path::new(jwks)).with_context(|| format!("reading {jwks}"))?
    };
    let set: JwkSet =
        serde_json::from_str(&text).with_context(|| format!("{jwks} is no JSON Web Key Set"))?;
    let header = decode_header(pass.trim()).context("the pass is malformed")?;
    ensure!(header.alg == Algorithm::EdDSA, "the pass is not signed with Ed25519");
    ensure!(header.crit.is_none(), "the pass names in crit what must be understood, and nothing is");
    let kid = header.kid.context("the pass does not name its key")?;
    let jwk = set.find(&kid).context("the pass was signed with a key that is not published")?;
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.leeway = 0;
    validation.set_audience(&[PASS_AUDIENCE]);
    validation.set_required_spec_claims(&["exp", "aud"]);
    let key = DecodingKey::from_jwk(jwk).context("the published key is unusable")?;
    let claims = decode::<Claims>(pass.trim(), &key, &validation).context("the pass is not valid")?.claims;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    ensure!(claims.exp > now, "the pass is not valid: it has expired");
    ensure!(claims.room == room, "the pass is for the room {}, not {room}", claims.room);
    Ok(claims)
}
