//! What the handlers of all jobs share: settings, tokens, limits, metrics.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::HttpRequest;
use tutti_service::Failures;
use tutti_sse::limits::Limits;

use crate::http::auth::Verifier;
use crate::http::claims::Claims;
use crate::http::client_address::{client_address, network_of};
use crate::http::problem::Problem;
use crate::http::refusal::Refusal;
use crate::http::settings::{Http, Streams};
use crate::metrics::Metrics;

/// What the handlers of all jobs share. Clones refer to one and may be used on any thread.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) http: Arc<Http>,
    pub(crate) streams: Arc<Streams>,
    pub(crate) verifier: Verifier,
    pub(crate) metrics: Metrics,
    /// Counts the streams of all workers.
    pub(crate) open_streams: Arc<Limits>,
    pub(crate) failures: Failures,
}

impl Shared {
    /// Returns the address that stands for all addresses of a request's client, by which limits and turns are kept;
    /// `None` if the connection has no peer.
    pub(crate) fn address_of(&self, request: &HttpRequest) -> Option<IpAddr> {
        let peer = request.peer_addr()?;
        // A line that is not UTF-8 must not hide what a trusted proxy appended to it.
        let lines: Vec<_> = request
            .headers()
            .get_all("x-forwarded-for")
            .map(|line| String::from_utf8_lossy(line.as_bytes()))
            .collect();
        let lines = lines.iter().map(AsRef::as_ref);
        Some(network_of(client_address(peer.ip(), lines, &self.http.trusted_proxies)))
    }

    /// Returns the claims of a request's token, whatever they grant.
    ///
    /// # Errors
    /// If there is no valid token.
    pub(crate) fn claims(&self, request: &HttpRequest) -> Result<Claims, Problem> {
        self.verifier.claims(request).map_err(|refusal| self.refused(&refusal))
    }

    /// Returns the claims of a request's token, which must grant `scope`.
    ///
    /// # Errors
    /// If there is no valid token, or it does not grant the scope.
    pub(crate) fn check(&self, request: &HttpRequest, scope: &'static str) -> Result<Claims, Problem> {
        self.verifier.check(request, scope).map_err(|refusal| self.refused(&refusal))
    }

    /// Returns the problem of a request that is refused, and counts it.
    pub(crate) fn refused(&self, refusal: &Refusal) -> Problem {
        Problem::refused(&self.metrics, refusal)
    }
}
