//! The HTTP routes of the map.

use std::sync::Arc;
use std::time::Duration;

use actix_web::body::{self, SizedStream};
use actix_web::http::Method;
use actix_web::http::header::{self, Accept, Header as _};
use actix_web::{HttpRequest, HttpResponse, web};
use tutti_feed::Cursor;

use crate::following::cursor_wait::INCOMPLETE;
use crate::http::auth::query_of;
use crate::http::compress::takes_gzip;
use crate::http::open::{MAX_ID_BYTES, Shared, StreamQuery, address_of, open, readable, streamed};
use crate::http::problem::{Answer, bad, either, refused, unavailable};
use crate::map::area::Area;
use crate::map::catch_up::{Shown, View};
use crate::map::copies::{MAX_BYTES_OF_AN_ADDRESS, Refusal};
use crate::map::snapshot::{Form, Format, MapCopy};
use crate::map::viewers::Look;
use crate::sse::hub::What;
use crate::sse::limits::Whose;
use tutti_model::ResetReason;

/// The scope that reading the map needs, unless it is public.
const MAP_READ: &str = "map:read";

/// A large body is handed over in parts of this size.
const PART_BYTES: usize = 32 * 1024;

pub(crate) fn configure(app: &mut web::ServiceConfig) {
    app.service(readable("/v1/map/stream", async |r: HttpRequest, s: web::Data<Shared>| {
        streamed(&r, &s, stream(&r, &s))
    }))
    .service(readable("/v1/map/locations", async |r, s| either(locations(r, s).await)));
}

fn stream(request: &HttpRequest, shared: &Shared) -> Answer {
    let expires = authorise(request, shared)?;
    let query = StreamQuery::of(request)?;
    let what = map_part(request, shared, query.last_id.clone())?;
    Ok(open(request, shared, &query, expires, what))
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
    let address = address_of(request, &shared.config.http);
    Ok(What::Map(Look { shown: map_shown(id, view), view, address }))
}

/// The part of the world that a request asks for.
fn area_of(request: &HttpRequest) -> Result<Option<Area>, HttpResponse> {
    query_of(request, "bbox").map(|text| Area::parse(&text)).transpose().map_err(bad)
}

/// What a client that came with this id was shown of the map.
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

async fn locations(request: HttpRequest, shared: web::Data<Shared>) -> Answer {
    authorise(&request, &shared)?;
    if shared.hub.current().is_none() {
        return Err(unavailable("this edge has not read the map from Redis yet"));
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
    let address = address_of(&request, &shared.config.http).map(Whose::Address);
    let hub = shared.hub.clone();
    let newest = move || hub.current();
    let made = match area {
        None => shared.copies.whole(form, newest).await,
        Some(area) => shared.copies.area(area, form, address.clone().unwrap_or(Whose::All), newest).await,
    };
    let MapCopy { bytes: whole, gzip } = made.map_err(|refusal| {
        unavailable(match refusal {
            Refusal::Waiting => "as many requests of this address wait for a part of the map as there may be",
            Refusal::Busy => "as many copies of the map are made or taken as there may be",
        })
    })?;
    if gzip {
        answer.insert_header((header::CONTENT_ENCODING, "gzip"));
    }
    let whose = address.into_iter().map(|address| (address, MAX_BYTES_OF_AN_ADDRESS)).collect();
    let counted = shared.answers.more(whole.len(), whose);
    let counted = counted
        .map_err(|_| unavailable("as much of the map is on its way to this address as there may be"))?;
    let size = whole.len() as u64;
    // In parts, so that the socket of each is filled from the one copy.
    let parts = (0..whole.len()).step_by(PART_BYTES).map(move |at| {
        let _until_the_last_is_taken = &counted;
        Ok::<_, std::io::Error>(whole.slice(at..whole.len().min(at + PART_BYTES)))
    });
    Ok(answer.body(SizedStream::new(size, futures_util::stream::iter(parts))))
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
        Ok(claims) => Ok(Some(claims.time_left())),
        Err(refusal) => Err(refused(shared, &refusal)),
    }
}
