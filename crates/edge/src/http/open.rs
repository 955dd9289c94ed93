//! Opening streams: whether a client may have one more, for how long, and what it receives if it may not.

use std::ops::Range;
use std::time::Duration;

use actix_web::http::header::{AcceptEncoding, ContentEncoding, Encoding, Header as _};
use actix_web::http::{Method, StatusCode, Version, header};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use rand::Rng as _;
use serde_json::json;
use tokio::time::Instant;
use tutti_sse::coding::Coding;
use tutti_sse::events::Events;
use tutti_sse::hub::{Admission, Start};
use tutti_sse::limits::{Owner, Permit};
use tutti_sse::stream::CloseReason;
use tutti_sse::takeover::{self, Slot};

use crate::http::auth::User;
use crate::http::problem::{Answer, Problem};
use crate::http::query::{MAX_ID_BYTES, StreamQuery, query_of};
use crate::http::shared::Shared;
use crate::metrics::{Metrics, TurnedAway};
use tutti_model::events::{BUSY, END};

/// What a job lets the client of a request see.
pub(crate) struct Part {
    /// Called when the socket is there: the job takes the stream over.
    pub(crate) start: Start,
    /// How long the token is valid; `None` if no token was needed.
    pub(crate) expires: Option<Duration>,
}

/// Opens a stream that lasts until its token expires, the client's `maxSeconds` are over, or its random life ends. A
/// client that is over a limit receives the event `busy` instead. With `compress` the frames are compressed if the
/// client accepts that, which pays only if many clients receive the same large frames.
pub(crate) fn open(
    request: &HttpRequest,
    shared: &Shared,
    query: &StreamQuery,
    part: Part,
    compress: bool,
) -> HttpResponse {
    if request.method() == Method::HEAD {
        return HttpResponse::Ok().content_type("text/event-stream; charset=utf-8").finish();
    }
    let permit = match count(request, shared) {
        Ok(permit) => permit,
        Err(full) => return turn_away(&shared.metrics, full.as_str(), 5_000..20_000),
    };
    let Some(slot) = request.conn_data::<Slot>() else {
        let detail = "this connection cannot stream";
        return Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into();
    };
    let life = shared.streams.life.mul_f64(rand::rng().random_range(1.0..1.5));
    let life = query.longest.map_or(life, |longest| life.min(longest));
    let (lasts, planned_end) = match part.expires {
        Some(left) if left < life => (left, CloseReason::Token),
        _ => (life, CloseReason::Life),
    };
    let chunked = request.version() >= Version::HTTP_11;
    let coding = if compress && shared.streams.compress { coding_of(request) } else { Coding::Identity };
    let is_repeated =
        |id: &&String| id.len() <= MAX_ID_BYTES && id.bytes().all(|byte| byte.is_ascii_graphic());
    let last_id = query.last_id.as_ref().filter(is_repeated).cloned();
    let ends_at = Instant::now() + lasts;
    slot.put(Admission { start: part.start, chunked, coding, ends_at, planned_end, last_id, permit });
    takeover::response(request, coding)
}

/// Returns the best coding that a client accepts. Zstandard is used only for clients that send `Sec-Fetch-Mode`, as
/// browsers do. Many of the others that accept it cannot read past the end of a frame (Python's httpx, urllib3 and
/// aiohttp among them), and a stream has a frame for each of its events.
fn coding_of(request: &HttpRequest) -> Coding {
    let goes_on_after_a_frame = request.headers().contains_key("sec-fetch-mode");
    let offered = [Encoding::zstd(), Encoding::gzip(), Encoding::identity()];
    let offered = offered.iter().skip(usize::from(!goes_on_after_a_frame));
    let taken = AcceptEncoding::parse(request).ok().and_then(|accepts| accepts.negotiate(offered));
    match taken {
        Some(Encoding::Known(ContentEncoding::Zstd)) => Coding::Zstd,
        Some(Encoding::Known(ContentEncoding::Gzip)) => Coding::Gzip,
        _ => Coding::Identity,
    }
}

/// Counts one more stream: of the edge, of the client's address, and of the user if the request's token was checked.
///
/// # Errors
/// The owner whose limit is reached.
fn count(request: &HttpRequest, shared: &Shared) -> Result<Permit, Owner> {
    let streams = &shared.streams;
    let mut owners = vec![(Owner::All, streams.max)];
    if let Some(address) = shared.address_of(request) {
        owners.push((Owner::Address(address), streams.max_per_address));
    }
    if let Some(User(sub)) = request.extensions().get::<User>() {
        owners.push((Owner::User(sub.clone()), streams.max_per_user));
    }
    shared.open_streams.acquire(owners)
}

/// Turns the answer to a request for a stream into one that the client of a stream can use. If the service is
/// unavailable, the client receives the event `busy` and comes back by itself. If the request is refused and its query
/// has `refusals=event`, the client receives the refusal as the event `end`, because a browser's EventSource shows its
/// program neither the status nor the body of a response.
pub(crate) fn answer_stream(request: &HttpRequest, shared: &Shared, answer: Answer) -> Answer {
    match answer {
        Err(problem) if problem.status() == StatusCode::SERVICE_UNAVAILABLE => {
            Ok(turn_away(&shared.metrics, "unavailable", 1_000..5_000))
        }
        Err(problem)
            if problem.status().is_client_error()
                && query_of(request, "refusals").as_deref() == Some("event") =>
        {
            Ok(refused_by_event(&problem))
        }
        answer => answer,
    }
}

/// Returns a stream with the event `end` alone, whose data says what the problem document says. A client that comes
/// back all the same waits 30 to 60 s.
fn refused_by_event(problem: &Problem) -> HttpResponse {
    let status = problem.status();
    let name = status.canonical_reason().unwrap_or("refused").to_ascii_lowercase().replace(' ', "_");
    let data = json!({ "reason": name, "status": status.as_u16(), "detail": problem.detail() });
    let mut events = Events::default();
    events.event(END, &data.to_string());
    events.retry(Duration::from_millis(rand::rng().random_range(30_000..60_000)));
    only_event(&events)
}

/// Counts a stream that is turned away, and returns a stream with the event `busy` alone. Its status is 200, because at
/// any other a browser would give up for good.
fn turn_away(metrics: &Metrics, reason: &'static str, retry_ms: Range<u64>) -> HttpResponse {
    metrics.turned_away.get_or_create(&TurnedAway { reason }).inc();
    let retry = Duration::from_millis(rand::rng().random_range(retry_ms));
    only_event(Events::default().come_back(BUSY, reason, retry))
}

/// Returns a stream that ends after these events.
fn only_event(events: &Events) -> HttpResponse {
    HttpResponse::Ok()
        .force_close()
        .content_type("text/event-stream; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(events.frame().bytes(false).clone())
}
