//! The HTTP routes of topics.

use std::time::Duration;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use serde_json::json;

use crate::following::cursor_wait::INCOMPLETE;
use crate::http::auth::{Refusal, query_of};
use crate::http::open::{MAX_ID_BYTES, Shared, StreamQuery, open, readable, streamed};
use crate::http::problem::{Answer, problem, refused};
use crate::sse::hub::What;
use crate::topics::listeners::{From, Listen};
use crate::topics::state::Place;
use tutti_model::ResetReason;

/// The scope that reading a topic needs, unless it is public; `topics:read:NAME` is good for one.
const READ: &str = "topics:read";

pub(crate) fn configure(app: &mut web::ServiceConfig) {
    app.service(readable("/v1/topics", list)).service(readable("/v1/topics/{name}/stream", stream));
}

/// Those that the request may read.
async fn list(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    match shared.config.verifier.claims(&request) {
        Ok(_) | Err(Refusal::Missing) => {}
        Err(refusal) => return refused(&shared, &refusal),
    }
    let names: Vec<&str> = shared
        .topics
        .keys()
        .map(|name| &**name)
        .filter(|name| may_read(&request, &shared, name).is_ok())
        .collect();
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(json!({ "topics": names }))
}

async fn stream(request: HttpRequest, shared: web::Data<Shared>, path: web::Path<String>) -> HttpResponse {
    streamed(&request, &shared, listen(&request, &shared, &path))
}

fn listen(request: &HttpRequest, shared: &Shared, name: &str) -> Answer {
    // Who may not read it does not hear whether it is there.
    let expires = may_read(request, shared, name).map_err(|refusal| refused(shared, &refusal))?;
    let (topic, steps) = shared.topics.get_key_value(name).ok_or_else(|| {
        problem(StatusCode::NOT_FOUND, "this edge does not serve that topic: see topics.names")
    })?;
    let query = StreamQuery::of(request)?;
    let from = match query.last_id.clone() {
        None => From::Now,
        Some(id) if id == "oldest" => From::Oldest,
        Some(id) if id == INCOMPLETE => From::Lost(ResetReason::Incomplete),
        Some(id) => match (id.len() <= MAX_ID_BYTES).then(|| Place::parse(&id)).flatten() {
            Some(place) => From::After(place),
            None => From::Lost(ResetReason::UnknownId),
        },
    };
    let key = query_of(request, "key").map(Bytes::from);
    let listen = Listen { topic: topic.clone(), steps: steps.clone(), key, from };
    Ok(open(request, shared, &query, expires, What::Topic(listen)))
}

/// How long the token is valid, if one was needed.
fn may_read(request: &HttpRequest, shared: &Shared, name: &str) -> Result<Option<Duration>, Refusal> {
    if shared.config.public_topics.iter().any(|public| public == name) {
        return Ok(None);
    }
    let claims = shared.config.verifier.claims(request)?;
    if claims.may(READ) || claims.may(&format!("{READ}:{name}")) {
        Ok(Some(claims.time_left()))
    } else {
        Err(Refusal::Scope(READ))
    }
}
