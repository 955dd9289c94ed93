//! Verifies the tokens of tickets with the public keys of the waiting room's service.
//!
//! Keys are fetched when a request needs newer ones, and that request waits for them: a service that has just begun to
//! use another key signs tickets with it at once. The keys of other issuers ([`issuer_keys`](crate::http::issuer_keys)) are fetched in
//! the background instead, so that a token which anyone can make never has a request wait for a distant server.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::{Algorithm, Validation, decode};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};
use tutti_model::queue::KeysRequest;
use tutti_model::room::{Claims, TICKET_AUDIENCE};
use tutti_service::grpc;

use crate::http::auth::{header_of, kind_of};
use crate::http::claims::NumericDate;
use crate::http::issuer_keys::{Key, public_keys};
use crate::rooms::client::Queue;

/// Keys that are older than this are fetched again, so that a withdrawn key stops being accepted.
const FRESH: Duration = Duration::from_secs(60);
/// Shortest time between two fetches because of an unknown key, and between two attempts that failed.
const MIN_FETCH_INTERVAL: Duration = Duration::from_secs(2);

/// Why a token was not accepted.
#[derive(Debug)]
pub(crate) enum TicketRefusal {
    /// The token is not valid, with the reason.
    Invalid(String),
    /// The service gave no keys, or none that are new enough to know whether the token's key exists.
    NoKeys(Status),
}

/// The public keys of the service, as they were last fetched.
pub(crate) struct TicketKeys {
    queue: Queue,
    held: RwLock<Option<Arc<Held>>>,
    /// Locked by the caller that fetches. Holds when the last fetch failed and why, unless one has succeeded since.
    asking: Mutex<Option<(Instant, Status)>>,
}

/// One fetched set of keys.
struct Held {
    jwks: Arc<str>,
    keys: Vec<Key>,
    at: Instant,
}

impl TicketKeys {
    pub(crate) fn new(queue: Queue) -> Self {
        Self { queue, held: RwLock::default(), asking: Mutex::default() }
    }

    /// Fetches the keys ahead of the first visitor, because the service may not answer when that visitor comes. Retries
    /// until it succeeds.
    pub(crate) async fn fetch_first(&self) {
        while self.queue.is_configured() && self.jwks().await.is_err() {
            sleep(MIN_FETCH_INTERVAL).await;
        }
    }

    /// Returns the public keys as a JSON Web Key Set.
    ///
    /// # Errors
    /// If no keys were ever fetched and the service gives none now.
    pub(crate) async fn jwks(&self) -> Result<Arc<str>, Status> {
        Ok(self.held(FRESH).await?.jwks.clone())
    }

    /// Returns the claims of `token`, if it is valid and was issued for a ticket of `room`.
    ///
    /// # Errors
    /// [`TicketRefusal::Invalid`] if the token is not valid for the room, [`TicketRefusal::NoKeys`] if that cannot be decided yet.
    pub(crate) async fn verify(&self, token: &str, room: &str) -> Result<Claims, TicketRefusal> {
        let asked = Instant::now();
        let invalid = |e: jsonwebtoken::errors::Error| TicketRefusal::Invalid(kind_of(&e));
        let header = header_of(token).map_err(TicketRefusal::Invalid)?;
        if header.alg != Algorithm::EdDSA {
            return Err(TicketRefusal::Invalid("its algorithm is not accepted".to_owned()));
        }
        let mut held = self.held(FRESH).await.map_err(TicketRefusal::NoKeys)?;
        let is_named = |key: &&Key| key.id == header.kid;
        if !held.keys.iter().any(|key| is_named(&key)) {
            held = self.held(MIN_FETCH_INTERVAL).await.map_err(TicketRefusal::NoKeys)?;
        }
        let Some(key) = held.keys.iter().find(is_named) else {
            // A set from before this request may lack the key that a replica has just begun to use.
            return Err(if held.at < asked {
                let sentence = "the token's key is not known yet; try again";
                TicketRefusal::NoKeys(grpc::refusal(Code::Unavailable, "unavailable", sentence))
            } else {
                TicketRefusal::Invalid("its key is not published".to_owned())
            });
        };
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = 0;
        validation.set_audience(&[TICKET_AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "aud"]);
        let claims = decode::<Claims>(token, &key.key, &validation).map_err(invalid)?.claims;
        if NumericDate::from_secs(claims.exp).time_left().is_zero() {
            return Err(TicketRefusal::Invalid("expired".to_owned()));
        }
        if claims.room == room {
            Ok(claims)
        } else {
            Err(TicketRefusal::Invalid("issued for another room".to_owned()))
        }
    }

    /// Returns keys that are younger than `max_age`. Returns older ones if the service gives none.
    ///
    /// # Errors
    /// If there are no keys of any age.
    async fn held(&self, max_age: Duration) -> Result<Arc<Held>, Status> {
        let current = || self.held.read().unwrap_or_else(PoisonError::into_inner).clone();
        let fresh = |held: &Arc<Held>| held.at.elapsed() < max_age;
        if let Some(held) = current().filter(fresh) {
            return Ok(held);
        }
        // One caller fetches. The others wait for its keys or its failure, so that they do not all ask in vain.
        let mut failed = self.asking.lock().await;
        if let Some(held) = current().filter(fresh) {
            return Ok(held);
        }
        if let Some((_, status)) = failed.as_ref().filter(|(at, _)| at.elapsed() < MIN_FETCH_INTERVAL) {
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

/// Parses a JSON Web Key Set.
///
/// # Errors
/// If the text is not a key set, or holds no usable key.
fn read(jwks: &str) -> Result<Held, Status> {
    let keys = public_keys(jwks.as_bytes())
        .map_err(|e| Status::internal(format!("cannot read the waiting room's keys: {e}")))?;
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
        assert_eq!(metrics.queue_unavailable.get(), 1, "one caller asks, and the others wait for its answer");
    }
}
