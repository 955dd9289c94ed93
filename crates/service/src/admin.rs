//! The admin port: `/live`, `/ready`, `/metrics`.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::accept::{Acceptor, Begin, Connection};
use crate::ready::Readiness;

/// Maximum number of open connections.
const MAX_CONNECTIONS: usize = 100;
/// Maximum time that the head of a request takes, from its first byte or from the end of the request before.
const HEAD: Duration = Duration::from_secs(10);
/// Time after which a connection takes no further request.
const LIFE: Duration = Duration::from_secs(60);
/// Maximum time that the last answer of a connection takes after [`LIFE`].
const LAST_ANSWER: Duration = Duration::from_secs(5);
/// Requires nothing of a new connection: hyper limits the time of the first request's head too.
const ANYTHING: Begin = Begin { bytes: 0, within: HEAD };

const PLAIN_TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the admin port shows.
#[derive(Clone)]
pub struct Admin {
    /// The state that `/ready` answers with.
    pub readiness: Readiness,
    /// The metrics that `/metrics` answers with.
    pub registry: Arc<Registry>,
}

/// Serves the admin port until the future is dropped.
pub async fn serve(listener: TcpListener, admin: Admin) {
    let acceptor = Acceptor::new(listener, MAX_CONNECTIONS, ANYTHING);
    loop {
        tokio::spawn(serve_connection(acceptor.accept().await, admin.clone()));
    }
}

/// Answers the requests of one connection, for a bounded time.
async fn serve_connection(connection: Connection, admin: Admin) {
    let service = service_fn(move |request| {
        let answered = answer(&request, &admin);
        async { Ok::<_, Infallible>(answered) }
    });
    let mut serving = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .serve_connection(TokioIo::new(connection), service)
    );
    tokio::select! {
        // An error is a client that broke off, which needs no answer.
        _ = serving.as_mut() => {}
        () = sleep(LIFE) => {
            serving.as_mut().graceful_shutdown();
            let _ = timeout(LAST_ANSWER, serving).await;
        }
    }
}

/// Answers one request.
fn answer<B>(request: &Request<B>, admin: &Admin) -> Response<String> {
    let page = match request.uri().path() {
        "/live" => |_: &Admin| response(StatusCode::OK, PLAIN_TEXT, "live\n"),
        "/ready" => ready,
        "/metrics" => metrics,
        _ => return empty(StatusCode::NOT_FOUND),
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = empty(StatusCode::METHOD_NOT_ALLOWED);
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET,HEAD"));
        return refusal;
    }
    page(admin)
}

/// Answers `/ready`: 200, or 503 with what is still missing.
fn ready(admin: &Admin) -> Response<String> {
    match admin.readiness.check() {
        Ok(()) => response(StatusCode::OK, PLAIN_TEXT, "ready\n"),
        Err(why) => response(StatusCode::SERVICE_UNAVAILABLE, PLAIN_TEXT, format!("{why}\n")),
    }
}

/// Answers `/metrics` in the OpenMetrics text format.
fn metrics(admin: &Admin) -> Response<String> {
    let mut text = String::new();
    match encode(&mut text, &admin.registry) {
        Ok(()) => response(StatusCode::OK, OPEN_METRICS, text),
        Err(error) => {
            warn!(%error, "the metrics cannot be written");
            let sentence = "the metrics cannot be written; the log says why\n";
            response(StatusCode::INTERNAL_SERVER_ERROR, PLAIN_TEXT, sentence)
        }
    }
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<String>) -> Response<String> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn empty(status: StatusCode) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status, the `Allow` header and the body of the answer to a request.
    fn answer_to(method: Method, path: &str) -> (u16, String, String) {
        let admin = Admin { readiness: Readiness::default(), registry: Arc::default() };
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        let (head, body) = answer(&request, &admin).into_parts();
        let allow = head.headers.get(ALLOW).map_or("", |allow| allow.to_str().unwrap());
        (head.status.as_u16(), allow.to_owned(), body)
    }

    #[test]
    fn only_get_and_head_of_the_three_paths_are_answered() {
        assert_eq!(answer_to(Method::GET, "/live?a=b"), (200, "".into(), "live\n".into()));
        assert_eq!(answer_to(Method::HEAD, "/live"), (200, "".into(), "live\n".into()));
        assert_eq!(answer_to(Method::GET, "/metrics"), (200, "".into(), "# EOF\n".into()));
        assert_eq!(answer_to(Method::POST, "/ready"), (405, "GET,HEAD".into(), "".into()));
        assert_eq!(answer_to(Method::GET, "/"), (404, "".into(), "".into()));
        assert_eq!(answer_to(Method::POST, "/live/"), (404, "".into(), "".into()));
    }
}
