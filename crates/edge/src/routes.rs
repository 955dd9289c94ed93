//! The HTTP routes.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::SizedStream;
use actix_web::http::header::{Accept, AcceptEncoding, ContentEncoding, Encoding, Header as _};
use actix_web::http::{Method, StatusCode, Version, header};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, web};
use rand::Rng as _;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use tutti_feed::Cursor;

use crate::answer::{bad, problem, refused, time_left, unavailable};
use crate::approach::{Shown, View};
use crate::area::Area;
use crate::auth::{User, query_of};
use crate::client_address::{client_address, network_of};
use crate::coding::Coding;
use crate::config::{Config, Http};
use crate::counts::{Counted, Counts, Whose};
use crate::handoff::{self, Slot};
use crate::hub::{Admission, Hub, What};
use crate::inboxes::Inboxes;
use crate::metrics::{Metrics, TurnedAway};
use crate::patience::INCOMPLETE;
use crate::rooms::Rooms;
use crate::snapshot::{Copies, Format, MAX_BYTES_OF_AN_ADDRESS};
use crate::stream::End;
use crate::tickets::TicketKeys;
use crate::topics::Topics;

/// The scope that reading the map needs, unless it is public.
const MAP_READ: &str = "map:read";

/// A large body is handed over in parts of this size.
const PART_BYTES: usize = 32 * 1024;

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
}

pub(crate) fn configure(app: &mut web::ServiceConfig) {
    app.service(web::resource("/").route(web::get().to(page)).route(web::head().to(page)))
        .service(
            web::resource("/rooms/{room}").route(web::get().to(room_page)).route(web::head().to(room_page)),
        )
        .service(web::resource("/v1/edges").route(web::get().to(edges)).route(web::head().to(edges)))
        .service(
            web::resource("/v1/map/stream")
                .route(web::get().to(map_stream))
                .route(web::head().to(map_stream)),
        )
        .service(
            web::resource("/v1/map/locations")
                .route(web::get().to(map_locations))
                .route(web::head().to(map_locations)),
        )
        .default_service(web::to(not_found));
}

/// The map.
async fn page() -> HttpResponse {
    html(include_str!("../../../web/index.html"))
}

/// A waiting room, as one of those who wait sees it.
async fn room_page() -> HttpResponse {
    html(include_str!("../../../web/room.html"))
}

fn html(text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .body(text)
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
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StreamQuery {
    /// What was shown before, as the client says.
    #[serde(rename = "since")]
    pub(crate) last_id: Option<String>,
    max_seconds: Option<u64>,
}

async fn map_stream(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    let expires = match authorise(&request, &shared) {
        Ok(expires) => expires,
        Err(refusal) => return refusal,
    };
    let query = match StreamQuery::of(&request) {
        Ok(query) => query,
        Err(refusal) => return refusal,
    };
    match map_part(&request, &shared, query.last_id.clone()) {
        Ok(what) => open(&request, &shared, &query, expires, what),
        Err(refusal) => refusal,
    }
}

impl StreamQuery {
    pub(crate) fn of(request: &HttpRequest) -> Result<Self, HttpResponse> {
        let query = web::Query::<Self>::from_query(request.query_string()).map_err(|_| {
            problem(
                StatusCode::BAD_REQUEST,
                "in the query, each name may stand once, and maxSeconds is a whole number",
            )
        })?;
        let Self { last_id: since, max_seconds } = query.into_inner();
        // The browser's own header wins: it is newer than the URL, which a reconnect repeats.
        let header =
            request.headers().get("last-event-id").map(|value| value.to_str().unwrap_or("?").to_owned());
        let last_id = header.filter(|id| !id.is_empty()).or(since).filter(|id| !id.is_empty());
        Ok(Self { last_id, max_seconds })
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
        Err(full) => return turn_away(shared, &full),
    };
    let Some(slot) = request.conn_data::<Slot>() else {
        return problem(StatusCode::INTERNAL_SERVER_ERROR, "this connection cannot stream");
    };
    let life = shared.config.streams.life.mul_f64(rand::rng().random_range(1.0..1.5));
    let life = query.max_seconds.map_or(life, |max| life.min(Duration::from_secs(max.max(1))));
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

/// What a client that came with this id is to be shown of the map.
pub(crate) fn map_part(
    request: &HttpRequest,
    shared: &Shared,
    id: Option<String>,
) -> Result<What, HttpResponse> {
    let view = match area_of(request)? {
        None => View::World,
        Some(area) if shared.config.clusters_to_zoom.is_some_and(|zoom| area.zoom() <= zoom) => {
            View::Clusters(area)
        }
        Some(area) => View::Area(area),
    };
    Ok(What::Map(map_shown(id, view), view))
}

/// The part of the world that a request asks for.
fn area_of(request: &HttpRequest) -> Result<Option<Area>, HttpResponse> {
    query_of(request, "bbox").map(|text| Area::parse(&text)).transpose().map_err(bad)
}

/// What a client that came with this id was shown of the map.
fn map_shown(id: Option<String>, view: View) -> Shown {
    let Some(id) = id else { return Shown::Nothing };
    if id == INCOMPLETE {
        return Shown::Lost("incomplete");
    }
    let (place, mark) = id.split_once('.').map_or((&*id, None), |(place, mark)| (place, Some(mark)));
    match (id.len() <= MAX_ID_BYTES).then(|| Cursor::parse(place)).flatten() {
        None => Shown::Lost("unknown_id"),
        Some(_) if mark != view.mark().as_deref() => Shown::Lost("other_view"),
        Some(cursor) => Shown::UpTo(Arc::new(cursor), None),
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
fn address_of(request: &HttpRequest, http: &Http) -> Option<IpAddr> {
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

/// Any status but 200 would make a browser give up for good.
fn turn_away(shared: &Shared, full: &Whose) -> HttpResponse {
    let reason = full.as_str();
    shared.metrics.turned_away.get_or_create(&TurnedAway { reason }).inc();
    let retry = rand::rng().random_range(5_000..20_000);
    HttpResponse::Ok()
        .force_close()
        .content_type("text/event-stream; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(format!("retry: {retry}\n: as many streams as there may be ({reason})\n\n"))
}

async fn map_locations(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    if let Err(refusal) = authorise(&request, &shared) {
        return refusal;
    }
    let Some(tick) = shared.hub.current() else {
        return unavailable("this edge has not read the map from Redis yet");
    };
    let area = match area_of(&request) {
        Ok(area) => area,
        Err(refusal) => return refusal,
    };
    let format = format_of(&request);
    let Some(whole) = tick.snapshot(area, format, &shared.copies) else {
        return unavailable("as many copies of the map are on their way to slow clients as there may be");
    };
    let address = address_of(&request, &shared.config.http).map(Whose::Address);
    let whose = address.into_iter().map(|address| (address, MAX_BYTES_OF_AN_ADDRESS)).collect();
    let Ok(counted) = shared.answers.more(whole.len(), whose) else {
        return unavailable("as much of the map is on its way to this address as there may be");
    };
    let size = whole.len() as u64;
    // In parts, so that the socket of each is filled from the one copy.
    let parts = (0..whole.len()).step_by(PART_BYTES).map(move |at| {
        let _until_the_last_is_taken = &counted;
        Ok::<_, std::io::Error>(whole.slice(at..whole.len().min(at + PART_BYTES)))
    });
    HttpResponse::Ok()
        .content_type(format.content_type())
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::VARY, "accept"))
        .body(SizedStream::new(size, futures_util::stream::iter(parts)))
}

/// GeoJSON for who asks for that by its name.
fn format_of(request: &HttpRequest) -> Format {
    let wanted = Accept::parse(request).map(|accept| accept.ranked()).unwrap_or_default();
    let named =
        |wanted: &str| [Format::Json, Format::GeoJson].into_iter().find(|f| f.content_type() == wanted);
    wanted.iter().find_map(|mime| named(mime.essence_str())).unwrap_or(Format::Json)
}

/// How long the token that the map needs is valid, if one was needed.
pub(crate) fn authorise(request: &HttpRequest, shared: &Shared) -> Result<Option<Duration>, HttpResponse> {
    if shared.config.map_public {
        return Ok(None);
    }
    match shared.config.verifier.check(request, MAP_READ) {
        Ok(claims) => Ok(Some(time_left(claims.exp))),
        Err(refusal) => Err(refused(shared, &refusal)),
    }
}
