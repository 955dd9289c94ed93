//! Keys that passes are signed with, and the verification of a pass by the service that the room protects.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use tutti_model::room::{Claims, PASS_AUDIENCE};

/// The bytes before the 32 bytes of an Ed25519 private key in PKCS #8 (RFC 8410, section 7).
const PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Makes an Ed25519 private key in the form that `passes.key_file` expects: PEM, PKCS #8.
pub fn new_key() -> String {
    let secret: [u8; 32] = rand::random();
    let der = [&PKCS8[..], &secret].concat();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der))
}

/// Returns the claims of a pass that is valid now and for this room. `jwks` says where the published keys are: a URL
/// such as `https://example.org/.well-known/jwks.json`, or a file.
///
/// # Errors
/// If the pass is not valid, or if the keys could not be read.
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
