//! The server of a gRPC port. It bounds what clients may take: connections, and the time of each call.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::stream::unfold;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::transport::server::{Connected, Server};

use crate::accept::{Acceptor, Begin, Connection};
use crate::service::Failure;

/// Open connections at most. An edge has one.
const MAX_CONNECTIONS: usize = 1000;
/// A client must send the preface of HTTP/2 (`PRI * HTTP/2.0`, 24 bytes) within this time.
const PREFACE: Begin = Begin { bytes: 24, within: Duration::from_secs(10) };
/// Silence after which the server sends a ping.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Time for the answer to a ping, after which the connection is closed.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest duration of a call, including the time that its request takes to arrive.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A gRPC server that was generated from a `.proto` file.
pub trait GeneratedServer:
    Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S> GeneratedServer for S where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// Serves one gRPC service until `stop` is cancelled and the calls that are under way are answered. Calls of other
/// services are answered with `UNIMPLEMENTED`.
///
/// # Errors
/// [`Failure::Other`] if the server ends by itself.
pub(super) async fn serve(
    listener: TcpListener,
    server: impl GeneratedServer,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let connections = unfold(Acceptor::new(listener, MAX_CONNECTIONS, PREFACE), async |acceptor| {
        let accepted = acceptor.accept().await;
        Some((Ok::<_, Infallible>(accepted), acceptor))
    });
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .timeout(CALL_TIMEOUT)
        .serve_with_incoming_shutdown(server, Box::pin(connections), stop.cancelled_owned())
        .await
        .map_err(|error| Failure::Other(format!("the gRPC server ended by itself: {error}")))
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}
