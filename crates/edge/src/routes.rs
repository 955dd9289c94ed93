//! What the HTTP routes have in common.

use std::net::IpAddr;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{AcceptEncoding, ContentEncoding, Encoding, Header as _};
use actix_web::http::{Method, StatusCode, Version, header};
use actix_web::{
    FromRequest, Handler, HttpMessage as _, HttpRequest, HttpResponse, Resource, Responder, web,
};
use bytes::Bytes;
use rand::Rng as _;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use tutti_service::Failures;

use crate::answer::{Answer, bad, either, problem};
use crate::auth::User;
use crate::client_address::{client_address, network_of};
use crate::coding::Coding;
use crate::config::{Config, Http};
use crate::copies::Copies;
use crate::counts::{Counted, Counts, Whose};
use crate::handoff::{self, Slot};
use crate::hub::{Admission, Hub, What};
use crate::inboxes::Inboxes;
use crate::metrics::{Metrics, TurnedAway};
use crate::rooms::Rooms;
use crate::stream::End;
use crate::tickets::TicketKeys;
use crate::topics::Topics;

/// A longer id is not ours.
pub(crate) const MAX_ID_BYTES: usize = 16 * 1024;

/// What the handlers share, one a worker.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) metrics: Metrics,
    pub(crate) hub: Rc<Hub>,
    /// Streams of all workers.
    pub(crate) streams: Arc<Counts>,
    /// Bytes of answers with the map that are being taken.
    pub(crate) answers: Arc<Counts>,
    pub(crate) copies: Copies,
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) ticket_keys: Arc<TicketKeys>,
    pub(crate) topics: Arc<Topics>,
    pub(crate) inboxes: Arc<Inboxes>,
    pub(crate) failures: Failures,
}

pub(crate) fn configure(app: &mut web::ServiceConfig) {
    app.service(readable("/v1/edges", edges)).default_service(web::to(not_found));
}

/// What is only read, by GET and HEAD.
pub(crate) fn readable<F: Handler<Args>, Args: FromRequest + 'static>(path: &str, read: F) -> Resource
where
    F::Output: Responder + 'static,
{
    only("GET, HEAD", web::resource(path).route(web::get().to(read.clone())).route(web::head().to(read)))
}

/// What is only posted to.
pub(crate) fn postable<F: Handler<Args>, Args: FromRequest + 'static>(path: &str, post: F) -> Resource
where
    F::Output: Responder + 'static,
{
    only("POST", web::resource(path).route(web::post().to(post)))
}

/// Says of what takes other methods only that it does.
pub(crate) fn only(allow: &'static str, resource: Resource) -> Resource {
    resource.default_service(web::to(move |request: HttpRequest| async move {
        let detail = format!("{} does not take {}, but {allow}", request.path(), request.method());
        let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, &detail);
        response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(allow));
        response
    }))
}

/// A request's body; asked for when its token was found good, for until then nothing of it is kept.
///
/// # Errors
/// The answer to one that is too long, or does not come.
pub(crate) async fn whole(body: web::Payload, most: usize) -> Result<Bytes, HttpResponse> {
    match body.to_bytes_limited(most).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => {
            Err(problem(error.as_response_error().status_code(), &format!("the body: {error}")))
        }
        Err(_) => {
            Err(problem(StatusCode::PAYLOAD_TOO_LARGE, &format!("the body has more than {most} bytes")))
        }
    }
}

/// What tells a request from another of the same kind, however often it is repeated.
pub(crate) fn idempotency_key(request: &HttpRequest) -> Option<&str> {
    let key = request.headers().get("idempotency-key")?.to_str().ok()?;
    // RFC 8941 would have it in quotes.
    Some(key.trim().trim_matches('"'))
}

async fn edges(shared: web::Data<Shared>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(json!({ "edges": shared.config.edges }))
}

async fn not_found(request: HttpRequest) -> HttpResponse {
    problem(StatusCode::NOT_FOUND, &format!("there is no {} {}", request.method(), request.path()))
}

/// What a client asks of any stream.
pub(crate) struct StreamQuery {
    /// What was shown before, as the client says.
    pub(crate) last_id: Option<String>,
    /// How long the stream may live, if the client bounds that.
    longest: Option<Duration>,
}

/// The same as it stands in the query.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawStreamQuery {
    since: Option<String>,
    #[serde(default)]
    max_seconds: String,
}

impl StreamQuery {
    pub(crate) fn of(request: &HttpRequest) -> Result<Self, HttpResponse> {
        let query = web::Query::<RawStreamQuery>::from_query(request.query_string())
            .map_err(|_| bad("in the query, each name may stand once"))?;
        let RawStreamQuery { since, max_seconds } = query.into_inner();
        let longest = duration_of(&max_seconds).map_err(bad)?;
        // The browser's own header wins: it is newer than the URL, which a reconnect repeats.
        let header =
            request.headers().get("last-event-id").map(|value| value.to_str().unwrap_or("?").to_owned());
        let last_id = header.filter(|id| !id.is_empty()).or(since).filter(|id| !id.is_empty());
        Ok(Self { last_id, longest })
    }
}

/// The time that `maxSeconds` gives, a second at least; `None` if it sets no bound.
///
/// # Errors
/// What to write instead.
fn duration_of(max_seconds: &str) -> Result<Option<Duration>, &'static str> {
    let text = max_seconds.trim();
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<f64>() {
        Ok(seconds) if !seconds.is_nan() => Ok(Duration::try_from_secs_f64(seconds.max(1.0)).ok()),
        _ => Err("maxSeconds is a number of seconds"),
    }
}

/// Opens a stream: for as long as its token is valid, and no longer than streams live.
pub(crate) fn open(
    request: &HttpRequest,
    shared: &Shared,
    query: &StreamQuery,
    expires: Option<Duration>,
    what: What,
) -> HttpResponse {
    if request.method() == Method::HEAD {
        return HttpResponse::Ok().content_type("text/event-stream; charset=utf-8").finish();
    }
    let counted = match count(request, shared) {
        Ok(counted) => counted,
        Err(full) => {
            return turn_away(shared, full.as_str(), "as many streams as there may be", 5_000..20_000);
        }
    };
    let Some(slot) = request.conn_data::<Slot>() else {
        return problem(StatusCode::INTERNAL_SERVER_ERROR, "this connection cannot stream");
    };
    let life = shared.config.streams.life.mul_f64(rand::rng().random_range(1.0..1.5));
    let life = query.longest.map_or(life, |longest| life.min(longest));
    let (lasts, end) = match expires {
        Some(left) if left < life => (left, End::Token),
        _ => (life, End::Life),
    };
    let chunked = request.version() >= Version::HTTP_11;
    let coding = match what {
        What::Map(..) if shared.config.streams.compress => coding_of(request),
        // Small events, and such as only one client gets: there is nothing to gain.
        _ => Coding::Identity,
    };
    let is_told = |id: &&String| id.len() <= MAX_ID_BYTES && id.bytes().all(|byte| byte.is_ascii_graphic());
    let last_id = query.last_id.as_ref().filter(is_told).cloned();
    slot.put(Admission { what, chunked, coding, ends_at: Instant::now() + lasts, end, last_id, counted });
    handoff::response(request, coding)
}

/// The best coding that a client takes.
fn coding_of(request: &HttpRequest) -> Coding {
    let ours = [Encoding::zstd(), Encoding::gzip(), Encoding::identity()];
    let taken = AcceptEncoding::parse(request).ok().and_then(|accepts| accepts.negotiate(ours.iter()));
    match taken {
        Some(Encoding::Known(ContentEncoding::Zstd)) => Coding::Zstd,
        Some(Encoding::Known(ContentEncoding::Gzip)) => Coding::Gzip,
        _ => Coding::Identity,
    }
}

/// Counts one more stream: in all, of its address, and of its user where its token was asked for.
fn count(request: &HttpRequest, shared: &Shared) -> Result<Counted, Whose> {
    let Config { streams, http, .. } = &*shared.config;
    let mut whose = vec![(Whose::All, streams.max)];
    if let Some(address) = address_of(request, http) {
        whose.push((Whose::Address(address), streams.max_per_address));
    }
    if let Some(User(sub)) = request.extensions().get::<User>() {
        whose.push((Whose::User(sub.clone()), streams.max_per_user));
    }
    shared.streams.one_more(whose)
}

/// Whose a request is.
pub(crate) fn address_of(request: &HttpRequest, http: &Http) -> Option<IpAddr> {
    let peer = request.peer_addr()?;
    // One word of garbage must not hide what a proxy of ours wrote behind it.
    let lines: Vec<_> = request
        .headers()
        .get_all("x-forwarded-for")
        .map(|line| String::from_utf8_lossy(line.as_bytes()))
        .collect();
    let lines = lines.iter().map(AsRef::as_ref);
    Some(network_of(client_address(peer.ip(), lines, &http.trusted_proxies)))
}

/// The answer to who asked for a stream: where there may be one in a moment, a browser is to come back by itself.
pub(crate) fn streamed(shared: &Shared, answer: Answer) -> HttpResponse {
    match answer {
        Err(refusal) if refusal.status() == StatusCode::SERVICE_UNAVAILABLE => turn_away(
            shared,
            "unavailable",
            "what is needed to check the token does not answer",
            1_000..5_000,
        ),
        answer => either(answer),
    }
}

/// Any status but 200 would make a browser give up for good.
fn turn_away(shared: &Shared, reason: &'static str, why: &str, retry_ms: Range<u64>) -> HttpResponse {
    shared.metrics.turned_away.get_or_create(&TurnedAway { reason }).inc();
    let retry = rand::rng().random_range(retry_ms);
    HttpResponse::Ok()
        .force_close()
        .content_type("text/event-stream; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(format!("retry: {retry}\n: {why} ({reason})\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longest_time_is_read_as_scripts_write_numbers() {
        let seconds = |n| Ok(Some(Duration::from_secs(n)));
        for (text, wanted) in [
            ("60", seconds(60)),
            ("60.0", seconds(60)),
            (" 6e1 ", seconds(60)),
            ("0", seconds(1)),
            ("-5", seconds(1)),
            ("0.5", seconds(1)),
            ("", Ok(None)),
            ("Infinity", Ok(None)),
            ("1e300", Ok(None)),
        ] {
            assert_eq!(duration_of(text), wanted, "{text}");
        }
        assert!(duration_of("undefined").is_err() && duration_of("NaN").is_err());
    }
}
