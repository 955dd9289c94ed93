//! Calls to a gRPC service behind the edge, at whichever of its replicas answers.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use tutti_service::grpc;

/// How long one replica may take to answer, and how long a call may take before no further replica is tried.
const ANSWER: Duration = Duration::from_secs(3);
/// How long connecting to a replica may take.
const CONNECT: Duration = Duration::from_secs(1);

/// The replicas of a service, each as a generated client `C`. Clones share the connections.
#[derive(Clone)]
pub(crate) struct Replicas<C> {
    /// The name of the service in messages.
    name: &'static str,
    clients: Arc<[C]>,
    next: Arc<AtomicUsize>,
    unavailable: Counter,
}

impl<C: Clone> Replicas<C> {
    /// Returns the replicas at these URLs. A replica is connected to when it is first asked. `unavailable` counts the
    /// calls that none answered. Call this within a Tokio runtime.
    ///
    /// # Errors
    /// Which URL is invalid, and why.
    pub(crate) fn new(
        name: &'static str,
        urls: &[String],
        client: impl Fn(Channel) -> C,
        unavailable: Counter,
    ) -> Result<Self, String> {
        let clients: Result<Vec<_>, String> = urls
            .iter()
            .map(|url| {
                let endpoint = Endpoint::from_shared(url.clone()).map_err(|e| format!("{url:?}: {e}"))?;
                let channel = endpoint
                    .connect_timeout(CONNECT)
                    .timeout(ANSWER)
                    .tcp_nodelay(true)
                    .http2_keep_alive_interval(Duration::from_secs(5))
                    .keep_alive_timeout(Duration::from_secs(3))
                    .connect_lazy();
                Ok(client(channel))
            })
            .collect();
        Ok(Self { name, clients: clients?.into(), next: Arc::default(), unavailable })
    }

    /// Whether there are any replicas.
    pub(crate) fn is_configured(&self) -> bool {
        !self.clients.is_empty()
    }

    /// Asks one replica after the other until one answers. A call may therefore be made more than once, so it must be
    /// idempotent.
    ///
    /// # Errors
    /// The refusal of the service, or `Unavailable` if none of its replicas answers.
    pub(crate) async fn ask<R: Clone, T, F: Future<Output = Result<Response<T>, Status>>>(
        &self,
        request: R,
        call: impl Fn(C, R) -> F,
    ) -> Result<T, Status> {
        let (first, began) = (self.next.fetch_add(1, Ordering::Relaxed), Instant::now());
        let mut why = Status::unavailable("no replica is configured");
        // The connection to a lone replica that has just restarted is good on the second attempt.
        for attempt in 0..self.clients.len().max(2) {
            let Some(replica) = self.clients.get((first + attempt) % self.clients.len().max(1)) else {
                break;
            };
            match call(replica.clone(), request.clone()).await {
                Ok(answer) => return Ok(answer.into_inner()),
                // A reason is a refusal, or Redis or Kafka is away, which all replicas share.
                Err(status) if reason(&status).is_some() && status.code() != Code::Internal => {
                    return Err(status);
                }
                Err(status) if is_passing(&status) => why = status,
                Err(status) => return Err(status),
            }
            // The client should not wait for one slow replica after the other.
            if began.elapsed() >= ANSWER {
                break;
            }
        }
        if reason(&why).is_some() {
            return Err(why);
        }
        self.unavailable.inc();
        Err(Status::unavailable(format!("{} does not answer: {}", self.name, why.message())))
    }
}

/// Returns the word by which a service names the reason of a status; `None` if it names none, as for any failure that
/// is not meant for clients.
pub(crate) fn reason(status: &Status) -> Option<&str> {
    status.metadata().get(grpc::REASON)?.to_str().ok()
}

/// Whether a call may succeed soon, or at another replica. A call that broke off on its way has no reason, which tells
/// it from a refusal with one of these codes.
pub(crate) fn is_passing(status: &Status) -> bool {
    match status.code() {
        // A replica of a newer version may read what this one cannot.
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal => true,
        Code::ResourceExhausted => reason(status).is_none(),
        _ => false,
    }
}
