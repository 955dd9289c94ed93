//! The admin port: `/live`, `/ready`, `/metrics`.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::accept::{Acceptor, Begin, Connection};
use crate::ready::Readiness;

/// Open connections at most.
const MAX_CONNECTIONS: usize = 100;
/// Duration that the head of a request may take, from its beginning or from the end of the one before.
const HEAD: Duration = Duration::from_secs(10);
/// Duration after which a connection takes no further request,
const LIFE: Duration = Duration::from_secs(60);
/// and how long the last answer may take then.
const LAST_ANSWER: Duration = Duration::from_secs(5);
/// hyper itself times the head of the first request.
const ANYTHING: Begin = Begin { bytes: 0, within: HEAD };

/// What the admin port shows.
#[derive(Clone)]
pub struct Admin {
    /// Behind `/ready`.
    pub readiness: Readiness,
    /// Behind `/metrics`.
    pub registry: Arc<Registry>,
}

/// Serves the admin port until the task is dropped.
pub async fn serve(listener: TcpListener, admin: Admin) {
    let Admin { readiness, registry } = admin;
    let ready = move || async move {
        match readiness.check() {
            Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        }
    };
    let metrics = move || async move {
        let mut text = String::new();
        match encode(&mut text, &registry) {
            Ok(()) => {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                ([(header::CONTENT_TYPE, kind)], text).into_response()
            }
            Err(error) => {
                warn!(%error, "the metrics cannot be written");
                (StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written; the log says why\n")
                    .into_response()
            }
        }
    };
    let router = Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics));
    let acceptor = Acceptor::new(listener, MAX_CONNECTIONS, ANYTHING);
    loop {
        tokio::spawn(answer(acceptor.accept().await, router.clone()));
    }
}

/// Answers the requests of one connection, for a bounded time.
async fn answer(connection: Connection, router: Router) {
    let answering = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(connection), TowerToHyperService::new(router));
    let mut answering = pin!(answering);
    tokio::select! {
        // What breaks off is the client's affair.
        _ = answering.as_mut() => {}
        () = sleep(LIFE) => {
            answering.as_mut().graceful_shutdown();
            let _ = timeout(LAST_ANSWER, answering).await;
        }
    }
}
