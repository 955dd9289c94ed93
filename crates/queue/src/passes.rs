//! Tickets' tokens and passes: signed with Ed25519, verified by anyone with the published keys.

use std::sync::Arc;

use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use tutti_model::room::{Claims, PASS_AUDIENCE, TICKET_AUDIENCE};
use tutti_service::Settings;

/// Signs with the first of its keys, and publishes all: while keys are being changed, two are valid.
#[derive(Clone)]
pub struct Signer(Arc<Keys>);

struct Keys {
    signing: Option<(EncodingKey, Header)>,
    ticket_seconds: u64,
    jwks: String,
}

/// Which ticket a token or pass is of, beyond doubt.
#[derive(Clone, Debug)]
pub(crate) struct Of<'a> {
    pub(crate) room: &'a str,
    pub(crate) ticket: u64,
    pub(crate) epoch: u32,
    pub(crate) joined_us: u64,
}

impl Signer {
    pub(crate) fn configure(settings: &mut Settings) -> Self {
        let first = settings.optional(
            "passes.key_file",
            "file with the Ed25519 private key (PEM, PKCS #8) that tickets and passes are signed with",
        );
        let more = settings.list(
            "passes.more_key_files",
            &[],
            "files with further keys that are valid: the next one, or the one before",
        );
        let ticket_seconds = settings.number(
            "tickets.token_seconds",
            7 * 86_400u64,
            1..=366 * 86_400,
            "seconds that a ticket's token is valid",
        );
        if first.is_none() {
            settings.mistake(
                "passes.key_file is needed; make a key with: tutti key > pass-key.pem, or openssl genpkey -algorithm ed25519",
            );
        }
        let mut keys = Vec::new();
        for path in first.iter().chain(&more) {
            match read(path) {
                Ok(key) => keys.push(key),
                Err(why) => settings.mistake(format!("passes: {path:?}: {why}")),
            }
        }
        let set = JwkSet { keys: keys.iter().map(|(_, jwk)| jwk.clone()).collect() };
        let signing = keys.into_iter().next().map(|(key, jwk)| {
            let header = Header { kid: jwk.common.key_id, ..Header::new(Algorithm::EdDSA) };
            (key, header)
        });
        let jwks = serde_json::to_string(&set).expect("a key set always serialises");
        Self(Arc::new(Keys { signing, ticket_seconds, jwks }))
    }

    /// The public keys, as a JSON Web Key Set (RFC 7517, RFC 8037).
    pub(crate) fn jwks(&self) -> &str {
        &self.0.jwks
    }

    /// A ticket's token.
    pub(crate) fn token(&self, of: &Of<'_>, now_us: u64) -> String {
        let now = now_us / 1_000_000;
        self.sign(TICKET_AUDIENCE, of, now, now + self.0.ticket_seconds)
    }

    /// A pass, which ends at `until_ms` at the latest.
    pub(crate) fn pass(&self, of: &Of<'_>, now_us: u64, pass_seconds: u64, until_ms: u64) -> String {
        let now = now_us / 1_000_000;
        self.sign(PASS_AUDIENCE, of, now, (now + pass_seconds).min(until_ms / 1000))
    }

    fn sign(&self, audience: &str, of: &Of<'_>, iat: u64, exp: u64) -> String {
        let claims = Claims {
            aud: audience.to_owned(),
            room: of.room.to_owned(),
            ticket: of.ticket,
            epoch: of.epoch,
            joined: of.joined_us,
            iat,
            exp,
        };
        let (key, header) = self.0.signing.as_ref().expect("a configuration without a key is a mistake");
        encode(header, &claims, key).expect("an Ed25519 key signs anything")
    }
}

fn read(path: &str) -> Result<(EncodingKey, Jwk), String> {
    let pem = std::fs::read(path).map_err(|e| e.to_string())?;
    let none = |e: jsonwebtoken::errors::Error| format!("not an Ed25519 private key in PEM, PKCS #8: {e}");
    let key = EncodingKey::from_ed_pem(&pem).map_err(none)?;
    let mut jwk = Jwk::from_encoding_key(&key, Algorithm::EdDSA).map_err(none)?;
    jwk.common.key_id = Some(jwk.thumbprint(ThumbprintHash::SHA256).map_err(none)?);
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    Ok((key, jwk))
}
