//! The HTTP route of combined streams.

use std::rc::Rc;

use actix_web::{HttpRequest, web};

use crate::combined::join::{Combined, CombinedStreams};
use crate::combined::rewrite::{Ids, PartKind};
use crate::following::reset::INCOMPLETE;
use crate::http::open::{Part, answer_stream, open};
use crate::http::problem::{Answer, Problem};
use crate::http::query::{MAX_ID_BYTES, StreamQuery, query_of};
use crate::http::routes::readable;
use crate::inbox::routes::InboxRoutes;
use crate::map::routes::MapRoutes;
use crate::rooms::routes::RoomRoutes;

/// The last id with which a client asks for everything that an inbox keeps.
const OLDEST: &str = "oldest";

/// What the handler of combined streams needs, one per worker: the parts that each job offers.
#[derive(Clone)]
pub(crate) struct CombinedRoutes {
    pub(crate) streams: Rc<CombinedStreams>,
    pub(crate) map: MapRoutes,
    pub(crate) rooms: RoomRoutes,
    pub(crate) inbox: InboxRoutes,
}

impl CombinedRoutes {
    /// Registers the route of combined streams.
    pub(crate) fn configure(self, app: &mut web::ServiceConfig) {
        app.app_data(web::Data::new(self)).service(readable("/v1/stream", stream));
    }
}

/// Streams several jobs in one connection.
async fn stream(request: HttpRequest, routes: web::Data<CombinedRoutes>) -> Answer {
    answer_stream(&request, &routes.map.shared, combine(&request, &routes).await)
}

/// Opens a combined stream of the parts that the query names.
///
/// # Errors
/// If the query cannot be read or names no part, or a part refuses the request.
async fn combine(request: &HttpRequest, routes: &CombinedRoutes) -> Answer {
    let query = StreamQuery::of(request)?;
    let last = &query.last_id;
    let parsed = last.as_deref().filter(|id| id.len() <= MAX_ID_BYTES).and_then(Ids::parse);
    // A client whose id cannot be read must receive a reset in each part. The ids say so until it has, in case it comes
    // back before that.
    let lost = last.is_some() && parsed.is_none();
    let mut ids = parsed.unwrap_or_default();
    let mut shown = |part| {
        if lost && last.as_deref() == Some(OLDEST) {
            // The id of the stream says so too, until the inbox has sent an id of its own.
            return (part == PartKind::Inbox).then(|| {
                ids.set(part, OLDEST);
                OLDEST.to_owned()
            });
        }
        if lost {
            ids.set(part, INCOMPLETE);
            return Some(if last.as_deref() == Some(INCOMPLETE) { INCOMPLETE } else { "?" }.to_owned());
        }
        ids.of(part).map(str::to_owned)
    };
    let asked = |name| query_of(request, name);
    let mut parts = Vec::new();
    if asked("inbox").is_some() {
        parts.push((PartKind::Inbox, routes.inbox.part(request, shown(PartKind::Inbox))?));
    }
    if let Some(room) = asked("room") {
        let token = asked("ticket").ok_or_else(|| {
            Problem::bad_request("room needs ticket, the token that joining the room returned")
        })?;
        let shown = shown(PartKind::Room);
        parts.push((PartKind::Room, routes.rooms.part(request, &room, &token, shown).await?));
    }
    if asked("map").is_some() {
        parts.push((PartKind::Map, routes.map.part(request, shown(PartKind::Map))?));
    }
    if parts.is_empty() {
        let detail = "name what the stream shows: inbox, room=NAME&ticket=TOKEN, map; for example ?inbox&map";
        return Err(Problem::bad_request(detail));
    }
    ids.only(parts.iter().map(|(kind, _)| *kind));
    let (streams, combined) = (routes.streams.clone(), Combined { parts, ids });
    let start = Box::new(move |stream, hello| streams.admit(stream, hello, combined));
    // The whole stream needs no end by a token, because each part ends with its own.
    Ok(open(request, &routes.map.shared, &query, Part { start, expires: None }, false))
}
