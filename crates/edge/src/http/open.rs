//! What the HTTP routes have in common.

use std::net::IpAddr;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::MessageBody as _;
use actix_web::http::header::{AcceptEncoding, ContentEncoding, Encoding, Header as _};
use actix_web::http::{Method, StatusCode, Version, header};
use actix_web::{
    FromRequest, Handler, HttpMessage as _, HttpRequest, HttpResponse, Resource, Responder, web,
};
use bytes::Bytes;
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::time::Instant;
use tutti_service::Failures;

use crate::config::{Config, Http};
use crate::http::auth::{User, query_of};
use crate::http::client_address::{client_address, network_of};
use crate::http::problem::{Answer, bad, either, problem};
use crate::inbox::follower::Inboxes;
use crate::map::copies::Copies;
use crate::metrics::{Metrics, TurnedAway};
use crate::rooms::follower::Rooms;
use crate::rooms::tickets::TicketKeys;
use crate::sse::coding::Coding;
use crate::sse::frame::Events;
use crate::sse::hub::{Admission, Hub, What};
use crate::sse::limits::{Counted, Counts, Whose};
use crate::sse::stream::End;
use crate::sse::takeover::{self, Slot};
use crate::topics::follower::Topics;
use tutti_model::events::{BUSY, END};

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

impl StreamQuery {
    /// Reads what a request asks for. The last id is, of those that are there and not empty, the header
    /// `Last-Event-ID`, which browsers send; `lastEventId` or `last-event-id` in the query, in any case of
    /// letters, which polyfills and Mercure's clients send; or `since`. The first is the newest: a client that
    /// reconnects repeats the rest of its URL.
    ///
    /// # Errors
    /// The answer to a query in which one of these names stands twice, or that is none.
    pub(crate) fn of(request: &HttpRequest) -> Result<Self, HttpResponse> {
        let query = web::Query::<Vec<(String, String)>>::from_query(request.query_string())
            .map_err(|_| bad("the query cannot be read: write it as name=value&name=value"))?;
        let one = |names: &[&str]| {
            let is_named = |name: &str| names.iter().any(|one| name.eq_ignore_ascii_case(one));
            let mut found = query.iter().filter(|(name, _)| is_named(name)).map(|(_, value)| value.as_str());
            let first = found.next();
            match found.next() {
                Some(_) => Err(bad(&format!("in the query, {} may stand once", names[0]))),
                None => Ok(first.filter(|value| !value.is_empty())),
            }
        };
        let header = request.headers().get("last-event-id").map(|value| value.to_str().unwrap_or("?"));
        let (newer, older) = (one(&["lastEventId", "last-event-id"])?, one(&["since"])?);
        let last_id = header.filter(|id| !id.is_empty()).or(newer).or(older).map(str::to_owned);
        let longest = duration_of(one(&["maxSeconds"])?.unwrap_or_default()).map_err(bad)?;
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
            return turn_away(shared, full.as_str(), 5_000..20_000);
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
    takeover::response(request, coding)
}

/// The best coding that a client takes. Zstandard only for those that say in which mode they fetch, as browsers
/// do: of the others that offer it many cannot go on after the end of a frame (httpx, urllib3 and aiohttp of
/// Python among them), and a stream has a frame for each of its events.
fn coding_of(request: &HttpRequest) -> Coding {
    let goes_on_after_a_frame = request.headers().contains_key("sec-fetch-mode");
    let ours = [Encoding::zstd(), Encoding::gzip(), Encoding::identity()];
    let ours = ours.iter().skip(usize::from(!goes_on_after_a_frame));
    let taken = AcceptEncoding::parse(request).ok().and_then(|accepts| accepts.negotiate(ours));
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

/// The answer to a request for a stream. Where there may be one in a moment, the client is to come back by itself.
/// A browser's EventSource shows its program neither the status nor the body of a refusal: with `refusals=event` in
/// the query that is told in an event.
pub(crate) fn streamed(request: &HttpRequest, shared: &Shared, answer: Answer) -> HttpResponse {
    match answer {
        Err(refusal) if refusal.status() == StatusCode::SERVICE_UNAVAILABLE => {
            turn_away(shared, "unavailable", 1_000..5_000)
        }
        Err(refusal)
            if refusal.status().is_client_error()
                && query_of(request, "refusals").as_deref() == Some("event") =>
        {
            refused_by_event(refusal)
        }
        answer => either(answer),
    }
}

/// Tells a refusal as the event `end`, and in it what the problem document says. A client that comes back all the
/// same does so late.
fn refused_by_event(refusal: HttpResponse) -> HttpResponse {
    let status = refusal.status();
    let name = status.canonical_reason().unwrap_or("refused").to_ascii_lowercase().replace(' ', "_");
    let problem = refusal.into_body().try_into_bytes().ok();
    let problem = problem.and_then(|text| serde_json::from_slice::<Value>(&text).ok()).unwrap_or_default();
    let data = json!({ "reason": name, "status": status.as_u16(), "detail": problem["detail"] });
    let mut events = Events::default();
    events.event(END, &data.to_string());
    events.retry(Duration::from_millis(rand::rng().random_range(30_000..60_000)));
    only_event(&events)
}

/// Any status but 200 would make a browser give up for good.
fn turn_away(shared: &Shared, reason: &'static str, retry_ms: Range<u64>) -> HttpResponse {
    shared.metrics.turned_away.get_or_create(&TurnedAway { reason }).inc();
    let retry = Duration::from_millis(rand::rng().random_range(retry_ms));
    only_event(Events::default().come_back(BUSY, reason, retry))
}

/// A stream of one event.
fn only_event(events: &Events) -> HttpResponse {
    HttpResponse::Ok()
        .force_close()
        .content_type("text/event-stream; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(events.frame().bytes(false).clone())
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
