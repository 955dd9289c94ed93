//! Asks the waiting room's service, whichever of its replicas answers.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use tutti_feed::Position;
use tutti_model::queue::Version;

use crate::metrics::Metrics;

/// The generated gRPC client of `proto/tutti/queue/v1`.
mod proto {
    #![allow(missing_docs, reason = "generated; documented in proto/tutti/queue/v1/queue.proto")]
    #![allow(unreachable_pub, reason = "generated")]
    #![allow(clippy::all, clippy::pedantic, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/tutti.queue.v1.rs"));
}

pub(crate) use proto::queue_client::QueueClient;

/// How long one replica may take.
const ANSWER: Duration = Duration::from_secs(3);
const CONNECT: Duration = Duration::from_secs(1);
/// A snapshot has a bit a visitor.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// All replicas.
#[derive(Clone)]
pub(crate) struct Queue {
    replicas: Arc<[QueueClient<Channel>]>,
    next: Arc<AtomicUsize>,
    metrics: Metrics,
}

impl Queue {
    /// Replicas at these URLs; they are connected to when they are asked. Needs a runtime.
    ///
    /// # Errors
    /// Which URL is none.
    pub(crate) fn new(urls: &[String], metrics: &Metrics) -> Result<Self, String> {
        let replicas: Result<Vec<_>, String> = urls
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
                Ok(QueueClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES))
            })
            .collect();
        Ok(Self { replicas: replicas?.into(), next: Arc::default(), metrics: metrics.clone() })
    }

    /// Whether there is a waiting room.
    pub(crate) fn is_configured(&self) -> bool {
        !self.replicas.is_empty()
    }

    /// Asks one replica after the other until one answers. Each call may so be made twice, which
    /// changes nothing.
    ///
    /// # Errors
    /// What the service says, or that none of its replicas does.
    pub(crate) async fn ask<R: Clone, T, F: Future<Output = Result<Response<T>, Status>>>(
        &self,
        request: R,
        call: impl Fn(QueueClient<Channel>, R) -> F,
    ) -> Result<T, Status> {
        let (first, began) = (self.next.fetch_add(1, Ordering::Relaxed), Instant::now());
        let mut why = Status::unavailable("no waiting room is configured");
        // A lone replica that was just started anew is found on the second attempt.
        for attempt in 0..self.replicas.len().max(2) {
            let Some(replica) = self.replicas.get((first + attempt) % self.replicas.len().max(1)) else {
                break;
            };
            match call(replica.clone(), request.clone()).await {
                Ok(answer) => return Ok(answer.into_inner()),
                // Its Redis is away; the other replicas have no other.
                Err(status) if reason(&status).is_some() => return Err(status),
                Err(status) if is_passing(&status) => why = status,
                Err(status) => return Err(status),
            }
            // Who asks should not wait for one after the other.
            if began.elapsed() >= ANSWER {
                break;
            }
        }
        self.metrics.queue_unavailable.inc();
        Err(Status::unavailable(format!("the waiting room's service does not answer: {}", why.message())))
    }
}

/// The word with which the service refuses something.
pub(crate) fn reason(status: &Status) -> Option<&str> {
    status.metadata().get("tutti-reason")?.to_str().ok()
}

/// Whether it may be otherwise a moment later, or at another replica: what breaks off on the way has no
/// word for its reason.
pub(crate) fn is_passing(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => true,
        Code::Internal | Code::ResourceExhausted => reason(status).is_none(),
        _ => false,
    }
}

/// A version of a room as the place in its feed that it is.
pub(crate) fn position(version: Option<Version>) -> Position {
    let Version { epoch, seq, time_us } = version.unwrap_or_default();
    Position { epoch, seq, time_us }
}
