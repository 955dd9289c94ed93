//! Requests that are repeated, at any edge, until there is an answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::Rng as _;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;
use tokio::time::sleep;

/// Picks one of the edges at random.
pub(crate) fn any_of(edges: &[String]) -> &str {
    &edges[rand::rng().random_range(0..edges.len())]
}

/// Repeats a request until one of the `good` answers comes. `again` counts the attempts that failed.
///
/// # Errors
/// If a server answers what it must not, such as a refusal of a good token.
pub(crate) async fn until_answered(
    edges: &[String],
    again: &AtomicU64,
    request: impl Fn(&str) -> RequestBuilder,
    good: &[StatusCode],
) -> anyhow::Result<Value> {
    loop {
        match request(any_of(edges)).timeout(Duration::from_secs(10)).send().await {
            Ok(answer) if good.contains(&answer.status()) => {
                if let Ok(body) = answer.json().await {
                    return Ok(body);
                }
            }
            Ok(answer) if is_passing(answer.status()) => {
                let after = answer.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
                sleep(Duration::from_secs(after.unwrap_or(1))).await;
            }
            Ok(answer) => {
                let (status, url) = (answer.status(), answer.url().path().to_owned());
                anyhow::bail!("{url} answered {status}: {}", answer.text().await.unwrap_or_default());
            }
            Err(_) => {}
        }
        again.fetch_add(1, Ordering::Relaxed);
        sleep(jitter()).await;
    }
}

/// Whether another attempt may get another answer. RFC 9110 repeats a request that was answered with 408 on a new
/// connection, because the answer may be older than the request.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT
}

/// Returns the time until the next attempt. Like an EventSource that was told `retry: 1000`, many clients must not
/// all come back at once.
pub(crate) fn jitter() -> Duration {
    Duration::from_millis(rand::rng().random_range(200..1000))
}
