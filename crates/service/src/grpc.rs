//! The frame of a gRPC service: its port, and what it says where it does not answer.

use std::convert::Infallible;
use std::fmt::Display;
use std::time::Duration;

use futures_util::stream::unfold;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::metadata::MetadataValue;
use tonic::transport::server::{Connected, Server};
use tonic::{Code, Status};

use crate::accept::{Acceptor, Begin, Connection};
use crate::failures::Failures;
use crate::run::Failure;

/// The metadata with the word for why a call was refused. A message that comes with it may be shown to strangers.
pub const REASON: &str = "tutti-reason";
/// The metadata with the request id under which the log of the service says why a call failed.
pub const REQUEST_ID: &str = "tutti-request-id";

/// Open connections at most: an edge has one.
const MAX_CONNECTIONS: usize = 1000;
/// What HTTP/2 clients send first: `PRI * HTTP/2.0` and so on.
const PREFACE: Begin = Begin { bytes: 24, within: Duration::from_secs(10) };
/// A client that is not heard of for this long is asked for a sign of life,
const KEEPALIVE: Duration = Duration::from_secs(10);
/// and cut off if it does not give one within this.
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(5);
/// Duration of a call at most, with the time that its request takes to come.
const CALL: Duration = Duration::from_secs(30);

/// Serves one gRPC service until `stop` is cancelled and the calls under way are answered.
///
/// The service is the generated server. It answers calls of other services with `UNIMPLEMENTED`.
///
/// # Errors
/// [`Failure::Other`] if the server ends by itself.
pub async fn serve<S>(listener: TcpListener, service: S, stop: CancellationToken) -> Result<(), Failure>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let connections = unfold(Acceptor::new(listener, MAX_CONNECTIONS, PREFACE), async |acceptor| {
        let accepted = acceptor.accept().await;
        Some((Ok::<_, Infallible>(accepted), acceptor))
    });
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        .timeout(CALL)
        .serve_with_incoming_shutdown(service, Box::pin(connections), stop.cancelled_owned())
        .await
        .map_err(|error| Failure::Other(format!("gRPC: {error}")))
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

/// A refusal: the caller is told the whole reason, as a word for programs and a sentence for people.
pub fn refusal(code: Code, reason: &'static str, sentence: impl Into<String>) -> Status {
    let mut status = Status::new(code, sentence);
    status.metadata_mut().insert(REASON, MetadataValue::from_static(reason));
    status
}

/// A failure of the service's own: the caller is told a fixed sentence and a request id, and the log has the error.
pub fn failure(
    failures: &Failures,
    (code, reason, sentence): (Code, &'static str, &'static str),
    doing: &str,
    error: &dyn Display,
) -> Status {
    let mut status = refusal(code, reason, sentence);
    if let Ok(id) = failures.log(doing, error).parse() {
        status.metadata_mut().insert(REQUEST_ID, id);
    }
    status
}
