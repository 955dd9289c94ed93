//! The HTTP route of combined streams.

use actix_web::{HttpRequest, HttpResponse, web};

use crate::combined::join::Several;
use crate::combined::rewrite::{Ids, Part};
use crate::following::cursor_wait::INCOMPLETE;
use crate::http::auth::query_of;
use crate::http::open::{MAX_ID_BYTES, Shared, StreamQuery, open, readable, streamed};
use crate::http::problem::{Answer, bad};
use crate::inbox::routes::device_of;
use crate::map::routes::{authorise, map_part};
use crate::rooms::routes::visit_of;
use crate::sse::hub::What;

/// In place of an id: all that an inbox keeps.
const OLDEST: &str = "oldest";

pub(crate) fn configure(app: &mut web::ServiceConfig) {
    app.service(readable("/v1/stream", stream));
}

async fn stream(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    streamed(&request, &shared, combine(&request, &shared).await)
}

async fn combine(request: &HttpRequest, shared: &Shared) -> Answer {
    let query = StreamQuery::of(request)?;
    let last = &query.last_id;
    let parsed = last.as_deref().filter(|id| id.len() <= MAX_ID_BYTES).and_then(Ids::parse);
    // What came with an id that cannot be told from another must hear so in each part, and again if it comes
    // back before it did.
    let lost = last.is_some() && parsed.is_none();
    let mut ids = parsed.unwrap_or_default();
    let mut shown = |part| {
        if lost && last.as_deref() == Some(OLDEST) {
            // Told in the id, too, until the inbox has told another.
            return (part == Part::Inbox).then(|| {
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
        let (device, expires) = device_of(request, shared, shown(Part::Inbox))?;
        parts.push((Part::Inbox, What::Inbox(device), expires));
    }
    if let Some(room) = asked("room") {
        let token = asked("ticket").ok_or_else(|| bad("room needs ticket, the token that joining gave"))?;
        let (visit, exp) = visit_of(request, shared, &room, &token, shown(Part::Room)).await?;
        parts.push((Part::Room, What::Room(visit), Some(exp.time_left())));
    }
    if asked("map").is_some() {
        let expires = authorise(request, shared)?;
        parts.push((Part::Map, map_part(request, shared, shown(Part::Map))?, expires));
    }
    if parts.is_empty() {
        return Err(bad("say what the stream is to show: inbox, room=NAME&ticket=TOKEN, map, as ?inbox&map"));
    }
    ids.only(parts.iter().map(|(part, ..)| *part));
    // Each part ends with its token.
    Ok(open(request, shared, &query, None, What::Several(Several { parts, ids })))
}
