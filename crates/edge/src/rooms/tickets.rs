//! Tickets' tokens: verified with the keys that the waiting room's service publishes.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};
use tutti_model::queue::KeysRequest;
use tutti_model::room::{Claims, TICKET_AUDIENCE};
use tutti_service::grpc;

use crate::http::auth::{NumericDate, header_of, kind_of};
use crate::rooms::client::Queue;

/// Keys are asked for again after so long, so that a key that was withdrawn is.
const FRESH: Duration = Duration::from_secs(60);
/// A token of an unknown key has them asked for again, but not more often than this.
const ANEW: Duration = Duration::from_secs(2);

/// Why a token is not taken.
#[derive(Debug)]
pub(crate) enum Untaken {
    /// It is not valid; why.
    Invalid(String),
    /// The keys could not be had, or not anew since a moment ago.
    NoKeys(Status),
}

/// The published keys, as they were last asked for.
pub(crate) struct TicketKeys {
    queue: Queue,
    held: RwLock<Option<Arc<Held>>>,
    /// Held by who asks; the last time that there was no answer, and why, if none came since.
    asking: Mutex<Option<(Instant, Status)>>,
}

struct Held {
    jwks: Arc<str>,
    keys: Vec<(Option<String>, DecodingKey)>,
    at: Instant,
}

impl TicketKeys {
    pub(crate) fn new(queue: Queue) -> Self {
        Self { queue, held: RwLock::default(), asking: Mutex::default() }
    }

    /// Has the keys fetched before the first visitor comes, who may come when the service does not answer.
    pub(crate) async fn fetch_first(&self) {
        while self.queue.is_configured() && self.jwks().await.is_err() {
            sleep(ANEW).await;
        }
    }

    /// The public keys, as a JSON Web Key Set.
    pub(crate) async fn jwks(&self) -> Result<Arc<str>, Status> {
        Ok(self.held(FRESH).await?.jwks.clone())
    }

    /// What a token says, if it is a valid one of a ticket of this room.
    pub(crate) async fn verify(&self, token: &str, room: &str) -> Result<Claims, Untaken> {
        let asked = Instant::now();
        let invalid = |e: jsonwebtoken::errors::Error| Untaken::Invalid(kind_of(&e));
        let header = header_of(token).map_err(Untaken::Invalid)?;
        if header.alg != Algorithm::EdDSA {
            return Err(Untaken::Invalid("of an algorithm that is not accepted".to_owned()));
        }
        let mut held = self.held(FRESH).await.map_err(Untaken::NoKeys)?;
        let known = |held: &Held| held.keys.iter().any(|(kid, _)| *kid == header.kid);
        if !known(&held) {
            held = self.held(ANEW).await.map_err(Untaken::NoKeys)?;
        }
        let Some((_, key)) = held.keys.iter().find(|(kid, _)| *kid == header.kid) else {
            // A set that is older than the question may lack the key that a replica began with just now.
            return Err(if held.at < asked {
                let sentence = "the token's key is not known yet; try again";
                Untaken::NoKeys(grpc::refusal(Code::Unavailable, "unavailable", sentence))
            } else {
                Untaken::Invalid("no key for it".to_owned())
            });
        };
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = 0;
        validation.set_audience(&[TICKET_AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "aud"]);
        let claims = decode::<Claims>(token, key, &validation).map_err(invalid)?.claims;
        if NumericDate::from_secs(claims.exp).time_left().is_zero() {
            return Err(Untaken::Invalid("expired".to_owned()));
        }
        if claims.room == room { Ok(claims) } else { Err(Untaken::Invalid("of another room".to_owned())) }
    }

    /// The keys, not older than that; older ones only where there are no others to be had.
    async fn held(&self, at_most: Duration) -> Result<Arc<Held>, Status> {
        let current = || self.held.read().unwrap_or_else(PoisonError::into_inner).clone();
        let fresh = |held: &Arc<Held>| held.at.elapsed() < at_most;
        if let Some(held) = current().filter(fresh) {
            return Ok(held);
        }
        // One asks, the others wait for what it gets, or for what it does not: they must not each ask in vain.
        let mut failed = self.asking.lock().await;
        if let Some(held) = current().filter(fresh) {
            return Ok(held);
        }
        if let Some((_, status)) = failed.as_ref().filter(|(at, _)| at.elapsed() < ANEW) {
            return current().ok_or_else(|| status.clone());
        }
        let answer = self.queue.ask(KeysRequest {}, |mut q, all| async move { q.keys(all).await }).await;
        match answer.and_then(|answer| read(&answer.jwks)) {
            Ok(held) => {
                let held = Arc::new(held);
                *failed = None;
                *self.held.write().unwrap_or_else(PoisonError::into_inner) = Some(held.clone());
                Ok(held)
            }
            Err(status) => {
                *failed = Some((Instant::now(), status.clone()));
                current().ok_or(status)
            }
        }
    }
}

fn read(jwks: &str) -> Result<Held, Status> {
    let unreadable = |e: String| Status::internal(format!("the waiting room's keys: {e}"));
    let set: JwkSet = serde_json::from_str(jwks).map_err(|e| unreadable(e.to_string()))?;
    let keys = set
        .keys
        .iter()
        .map(|jwk| {
            let key = DecodingKey::from_jwk(jwk).map_err(|e| unreadable(e.to_string()))?;
            Ok((jwk.common.key_id.clone(), key))
        })
        .collect::<Result<_, Status>>()?;
    Ok(Held { jwks: jwks.into(), keys, at: Instant::now() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::rooms::client;
    use prometheus_client::registry::Registry;

    #[tokio::test]
    async fn a_service_that_does_not_answer_is_not_asked_by_each() {
        let metrics = Metrics::new(&mut Registry::default());
        let queue = client::connect(&["http://127.0.0.1:1".to_owned()], &metrics).unwrap();
        let keys = TicketKeys::new(queue);
        let answers = futures_util::future::join_all((0..50).map(|_| keys.jwks())).await;
        assert!(
            answers.iter().all(|answer| answer.as_ref().is_err_and(|s| s.code() == tonic::Code::Unavailable))
        );
        assert_eq!(metrics.queue_unavailable.get(), 1, "one asks, and the others wait for its answer");
    }
}
