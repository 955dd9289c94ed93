//! The HTTP client of the tests, for the SSE client of LaunchDarkly, which would otherwise bring one of its own.

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use launchdarkly_sdk_transport::{
    ByteStream, HttpTransport, Request, Response, ResponseFuture, TransportError,
};

use crate::client;

/// Sends the requests of `eventsource_client` by [`client`].
#[derive(Clone)]
pub struct ReqwestTransport;

impl HttpTransport for ReqwestTransport {
    fn request(&self, request: Request<Option<Bytes>>) -> ResponseFuture {
        // The future must be `Sync`, and that of reqwest is not. Therefore the request runs as a task.
        let sending = tokio::spawn(send(request));
        Box::pin(async { sending.await.map_err(TransportError::new)?.map_err(TransportError::new) })
    }
}

async fn send(request: Request<Option<Bytes>>) -> reqwest::Result<Response<ByteStream>> {
    let request = request.map(Option::unwrap_or_default).try_into()?;
    let response = client().execute(request).await?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body: ByteStream = Box::pin(response.bytes_stream().map_err(TransportError::new));
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}
