//! Signs the tokens of tickets and the passes with Ed25519. Anyone can verify them with the published keys.

use std::sync::Arc;

use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use tutti_model::room::{Claims, PASS_AUDIENCE, TICKET_AUDIENCE};
use tutti_service::Settings;

/// Signs with the first key, and publishes all keys: while keys are rotated, two are valid.
#[derive(Clone)]
pub struct Signer(Arc<Keys>);

struct Keys {
    signing: Option<(EncodingKey, Header)>,
    ticket_seconds: u64,
    jwks: String,
}

/// The ticket that a token or pass belongs to. Epoch and time tell it from another ticket to which Redis gave the same
/// number after a failover.
#[derive(Clone, Debug)]
pub(crate) struct TicketRef<'a> {
    pub(crate) room: &'a str,
    pub(crate) number: u64,
    pub(crate) epoch: u32,
    pub(crate) joined_us: u64,
}

impl Signer {
    /// Reads the settings and the key files. What is wrong with them becomes a mistake of the settings.
    pub(crate) fn configure(settings: &mut Settings) -> Self {
        let first = settings.optional(
            "passes.key_file",
            "required: file with the Ed25519 private key (PEM, PKCS #8) that signs the tokens of tickets and the passes",
        );
        let more = settings.list(
            "passes.more_key_files",
            &[],
            "files with further valid keys: the next key, or the previous one",
        );
        let ticket_seconds = settings.number(
            "tickets.token_seconds",
            7 * 86_400u64,
            1..=366 * 86_400,
            "seconds for which the token of a ticket is valid",
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

    /// Returns the public keys as a JSON Web Key Set (RFC 7517, RFC 8037).
    pub(crate) fn jwks(&self) -> &str {
        &self.0.jwks
    }

    /// Returns the token of a ticket, valid from `now_us`.
    pub(crate) fn token(&self, ticket: &TicketRef<'_>, now_us: u64) -> String {
        let now = now_us / 1_000_000;
        self.sign(TICKET_AUDIENCE, ticket, now, now + self.0.ticket_seconds)
    }

    /// Returns a pass, valid from `now_us` for `pass_seconds`, and until `until_ms` at the latest.
    pub(crate) fn pass(
        &self,
        ticket: &TicketRef<'_>,
        now_us: u64,
        pass_seconds: u64,
        until_ms: u64,
    ) -> String {
        let now = now_us / 1_000_000;
        self.sign(PASS_AUDIENCE, ticket, now, (now + pass_seconds).min(until_ms / 1000))
    }

    fn sign(&self, audience: &str, ticket: &TicketRef<'_>, iat: u64, exp: u64) -> String {
        let claims = Claims {
            aud: audience.to_owned(),
            room: ticket.room.to_owned(),
            ticket: ticket.number,
            epoch: ticket.epoch,
            joined: ticket.joined_us,
            iat,
            exp,
        };
        let (key, header) = self.0.signing.as_ref().expect("a configuration without a key is a mistake");
        encode(header, &claims, key).expect("an Ed25519 key signs anything")
    }
}

/// Reads a private key from a file, and makes its public key.
fn read(path: &str) -> Result<(EncodingKey, Jwk), String> {
    let pem = std::fs::read(path).map_err(|e| e.to_string())?;
    let not_a_key =
        |e: jsonwebtoken::errors::Error| format!("not an Ed25519 private key in PEM, PKCS #8: {e}");
    let key = EncodingKey::from_ed_pem(&pem).map_err(not_a_key)?;
    let mut jwk = Jwk::from_encoding_key(&key, Algorithm::EdDSA).map_err(not_a_key)?;
    jwk.common.key_id = Some(jwk.thumbprint(ThumbprintHash::SHA256).map_err(not_a_key)?);
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    Ok((key, jwk))
}
