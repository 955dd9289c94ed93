//! HTTP routes of the map: the stream `/v1/map/stream` and the document `/v1/map/locations`.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::{self, SizedStream};
use actix_web::http::Method;
use actix_web::http::header::{self, Accept, Header as _};
use actix_web::{HttpRequest, HttpResponse, web};
use tutti_feed::Cursor;
use tutti_sse::hub::Start;
use tutti_sse::limits::{Limits, Owner};

use crate::following::reset::INCOMPLETE;
use crate::http::compress::takes_gzip;
use crate::http::open::{Part, answer_stream, open};
use crate::http::problem::{Answer, Problem};
use crate::http::query::{MAX_ID_BYTES, StreamQuery, query_of};
use crate::http::routes::readable;
use crate::http::shared::Shared;
use crate::map::area::Area;
use crate::map::copies::{Copies, MAX_BYTES_OF_AN_ADDRESS, Refusal};
use crate::map::shown::{Shown, View};
use crate::map::snapshot::{Form, Format, MapCopy};
use crate::map::viewers::{MapStreams, Subscription};
use tutti_model::events::ResetReason;

/// The scope that reading the map needs, unless it is public.
const MAP_READ: &str = "map:read";

/// Size in bytes of the parts in which a document with the map is handed to its socket.
const PART_BYTES: usize = 32 * 1024;

/// State that the handlers of the map need. Each worker has its own.
#[derive(Clone)]
pub(crate) struct MapRoutes {
    pub(crate) shared: Shared,
    pub(crate) streams: Rc<MapStreams>,
    pub(crate) copies: Copies,
    /// Limits the bytes of documents with the map that are on their way to clients, per address.
    pub(crate) answers: Arc<Limits>,
    /// Whether the map may be read without a token.
    pub(crate) is_public: bool,
    /// Areas at this zoom or further out are shown as clusters. `None`: areas are never clustered.
    pub(crate) clusters_to_zoom: Option<u8>,
}

impl MapRoutes {
    /// Registers the routes of the map.
    pub(crate) fn configure(self, app: &mut web::ServiceConfig) {
        app.app_data(web::Data::new(self))
            .service(readable("/v1/map/stream", stream))
            .service(readable("/v1/map/locations", locations));
    }

    /// Returns the map's part of a combined stream. The stream shows the area that the request asks for, and
    /// continues after what the client with `last_id` was shown.
    ///
    /// # Errors
    /// Returns a [`Problem`] if the token does not allow the map, or if the request's `bbox` is not a box.
    pub(crate) fn part(&self, request: &HttpRequest, last_id: Option<String>) -> Result<Part, Problem> {
        let expires = self.authorise(request)?;
        Ok(Part { start: self.start(request, last_id)?, expires })
    }

    fn start(&self, request: &HttpRequest, last_id: Option<String>) -> Result<Start, Problem> {
        let view = match area_of(request)? {
            None => View::World,
            Some(area) if self.clusters_to_zoom.is_some_and(|zoom| area.zoom() <= zoom) => {
                View::Clusters(area)
            }
            Some(area) => View::Area(area),
        };
        let address = self.shared.address_of(request);
        let asked = Subscription { shown: map_shown(last_id, view), view, address };
        let streams = self.streams.clone();
        Ok(Box::new(move |stream, hello| streams.admit(stream, hello, asked)))
    }

    /// Returns for how long the request's token is valid, or `None` if the map is public and needs no token.
    fn authorise(&self, request: &HttpRequest) -> Result<Option<Duration>, Problem> {
        if self.is_public {
            return Ok(None);
        }
        Ok(Some(self.shared.check(request, MAP_READ)?.time_left()))
    }
}

async fn stream(request: HttpRequest, map: web::Data<MapRoutes>) -> Answer {
    answer_stream(&request, &map.shared, open_stream(&request, &map))
}

fn open_stream(request: &HttpRequest, map: &MapRoutes) -> Answer {
    let expires = map.authorise(request)?;
    let query = StreamQuery::of(request)?;
    let part = Part { start: map.start(request, query.last_id.clone())?, expires };
    Ok(open(request, &map.shared, &query, part, true))
}

/// Returns the area in the request's `bbox`, or `None` if the request asks for the whole world.
fn area_of(request: &HttpRequest) -> Result<Option<Area>, Problem> {
    query_of(request, "bbox").map(|text| Area::parse(&text)).transpose().map_err(Problem::bad_request)
}

/// Returns what a client was shown of the map before it connected with `id`.
fn map_shown(id: Option<String>, view: View) -> Shown {
    let Some(id) = id else { return Shown::Nothing };
    if id == INCOMPLETE {
        return Shown::Lost(ResetReason::Incomplete);
    }
    let (place, mark) = id.split_once('.').map_or((&*id, None), |(place, mark)| (place, Some(mark)));
    match (id.len() <= MAX_ID_BYTES).then(|| Cursor::parse(place)).flatten() {
        None => Shown::Lost(ResetReason::UnknownId),
        Some(_) if mark != view.mark().as_deref() => Shown::Lost(ResetReason::OtherView),
        Some(cursor) => Shown::UpTo(Arc::new(cursor), None),
    }
}

/// Returns the format that the request's `Accept` prefers. Clients receive GeoJSON only if they name it; `*/*` is
/// JSON.
fn format_of(request: &HttpRequest) -> Format {
    let wanted = Accept::parse(request).map(|accept| accept.ranked()).unwrap_or_default();
    let named =
        |wanted: &str| [Format::Json, Format::GeoJson].into_iter().find(|f| f.content_type() == wanted);
    wanted.iter().find_map(|mime| named(mime.essence_str())).unwrap_or(Format::Json)
}

async fn locations(request: HttpRequest, map: web::Data<MapRoutes>) -> Answer {
    map.authorise(&request)?;
    if map.streams.current().is_none() {
        return Err(Problem::unavailable("this edge has not read the map from Redis yet"));
    }
    let area = area_of(&request)?;
    let format = format_of(&request);
    let form = Form { format, gzip: takes_gzip(&request) };
    let mut answer = HttpResponse::Ok();
    answer
        .content_type(format.content_type())
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::VARY, "accept, accept-encoding"));
    if request.method() == Method::HEAD {
        return Ok(answer.body(body::None::new()));
    }
    let address = map.shared.address_of(&request).map(Owner::Address);
    let streams = map.streams.clone();
    let newest = move || streams.current();
    let made = match area {
        None => map.copies.whole(form, newest).await,
        Some(area) => map.copies.area(area, form, address.clone().unwrap_or(Owner::All), newest).await,
    };
    let MapCopy { bytes: document, gzip } = made.map_err(|refusal| {
        Problem::unavailable(match refusal {
            Refusal::Waiting => "too many requests of this address are waiting for an area of the map",
            Refusal::Busy => "too many copies of the map are being made or sent",
        })
    })?;
    if gzip {
        answer.insert_header((header::CONTENT_ENCODING, "gzip"));
    }
    let owners = address.into_iter().map(|address| (address, MAX_BYTES_OF_AN_ADDRESS)).collect();
    let permit = map.answers.acquire_many(document.len(), owners);
    let permit = permit
        .map_err(|_| Problem::unavailable("too many bytes of the map are on their way to this address"))?;
    let size = document.len() as u64;
    // The body is cut into parts that share the one copy, so that each socket is filled without another copy.
    let parts = (0..document.len()).step_by(PART_BYTES).map(move |at| {
        let _held_until_the_last_part_is_taken = &permit;
        Ok::<_, std::io::Error>(document.slice(at..document.len().min(at + PART_BYTES)))
    });
    Ok(answer.body(SizedStream::new(size, futures_util::stream::iter(parts))))
}
