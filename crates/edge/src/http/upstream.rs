//! Asks one of our services, whichever of its replicas answers.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use tutti_service::grpc;

/// How long one replica may take.
const ANSWER: Duration = Duration::from_secs(3);
const CONNECT: Duration = Duration::from_secs(1);

/// All replicas of a service, by its generated client.
#[derive(Clone)]
pub(crate) struct Replicas<C> {
    /// As it is called in sentences.
    name: &'static str,
    clients: Arc<[C]>,
    next: Arc<AtomicUsize>,
    unavailable: Counter,
}

impl<C: Clone> Replicas<C> {
    /// Replicas at these URLs; they are connected to when they are asked. Needs a runtime.
    ///
    /// # Errors
    /// Which URL is none.
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

    /// Whether there are any.
    pub(crate) fn is_configured(&self) -> bool {
        !self.clients.is_empty()
    }

    /// Asks one replica after the other until one answers. Each call may so be made twice, which
    /// changes nothing.
    ///
    /// # Errors
    /// What the service says, or that none of its replicas does.
    pub(crate) async fn ask<R: Clone, T, F: Future<Output = Result<Response<T>, Status>>>(
        &self,
        request: R,
        call: impl Fn(C, R) -> F,
    ) -> Result<T, Status> {
        let (first, began) = (self.next.fetch_add(1, Ordering::Relaxed), Instant::now());
        let mut why = Status::unavailable("none is configured");
        // A lone replica that was just started anew is found on the second attempt.
        for attempt in 0..self.clients.len().max(2) {
            let Some(replica) = self.clients.get((first + attempt) % self.clients.len().max(1)) else {
                break;
            };
            match call(replica.clone(), request.clone()).await {
                Ok(answer) => return Ok(answer.into_inner()),
                // Its Redis or Kafka is away; the other replicas have no other.
                Err(status) if reason(&status).is_some() && status.code() != Code::Internal => {
                    return Err(status);
                }
                Err(status) if is_passing(&status) => why = status,
                Err(status) => return Err(status),
            }
            // Who asks should not wait for one after the other.
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

/// The word with which a service refuses something.
pub(crate) fn reason(status: &Status) -> Option<&str> {
    status.metadata().get(grpc::REASON)?.to_str().ok()
}

/// Whether it may be otherwise a moment later, or at another replica: what breaks off on the way has no
/// word for its reason.
pub(crate) fn is_passing(status: &Status) -> bool {
    match status.code() {
        // A replica of a newer version may read what this one cannot.
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal => true,
        Code::ResourceExhausted => reason(status).is_none(),
        _ => false,
    }
}
