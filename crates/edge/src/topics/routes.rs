//! The HTTP routes of topics.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, web};
use bytes::Bytes;
use serde_json::json;

use crate::following::reset::INCOMPLETE;
use crate::http::open::{Part, answer_stream, open};
use crate::http::problem::{Answer, Problem, json_now};
use crate::http::query::{MAX_ID_BYTES, StreamQuery, query_of};
use crate::http::refusal::Refusal;
use crate::http::routes::readable;
use crate::http::shared::Shared;
use crate::topics::catch_up::StartAt;
use crate::topics::follower::Topics;
use crate::topics::listeners::{Listen, TopicStreams};
use crate::topics::state::EventPosition;
use tutti_model::events::ResetReason;

/// The scope that reading a topic needs, unless the topic is public. `topics:read:NAME` grants one topic.
const READ: &str = "topics:read";

/// What the handlers of topics need, one per worker.
#[derive(Clone)]
pub(crate) struct TopicRoutes {
    pub(crate) shared: Shared,
    pub(crate) streams: Rc<TopicStreams>,
    pub(crate) topics: Arc<Topics>,
    /// The topics that may be read without a token.
    pub(crate) public: Arc<[String]>,
}

impl TopicRoutes {
    /// Registers the routes of topics.
    pub(crate) fn configure(self, app: &mut web::ServiceConfig) {
        app.app_data(web::Data::new(self))
            .service(readable("/v1/topics", list))
            .service(readable("/v1/topics/{name}/stream", stream));
    }

    /// Returns how long the token of a request for a topic is valid; `None` if the topic needs no token.
    ///
    /// # Errors
    /// If the request may not read the topic.
    fn authorise(&self, request: &HttpRequest, name: &str) -> Result<Option<Duration>, Refusal> {
        if self.public.iter().any(|public| public == name) {
            return Ok(None);
        }
        let claims = self.shared.verifier.claims(request)?;
        if claims.may(READ) || claims.may(&format!("{READ}:{name}")) {
            Ok(Some(claims.time_left()))
        } else {
            Err(Refusal::Scope(READ))
        }
    }
}

/// Lists the topics that the request may read.
async fn list(request: HttpRequest, topics: web::Data<TopicRoutes>) -> Answer {
    match topics.shared.verifier.claims(&request) {
        Ok(_) | Err(Refusal::Missing) => {}
        Err(refusal) => return Err(topics.shared.refused(&refusal)),
    }
    let names = topics.topics.keys().map(|name| &**name);
    let readable: Vec<&str> = names.filter(|name| topics.authorise(&request, name).is_ok()).collect();
    Ok(json_now(&json!({ "topics": readable })))
}

/// Streams one topic.
async fn stream(request: HttpRequest, topics: web::Data<TopicRoutes>, path: web::Path<String>) -> Answer {
    answer_stream(&request, &topics.shared, open_stream(&request, &topics, &path))
}

/// Opens a stream of a topic.
///
/// # Errors
/// If the request may not read the topic, the topic does not exist, or the query cannot be read.
fn open_stream(request: &HttpRequest, routes: &TopicRoutes, name: &str) -> Answer {
    // A client that may not read a topic does not learn whether it exists.
    let expires = routes.authorise(request, name).map_err(|refusal| routes.shared.refused(&refusal))?;
    let (topic, steps) = routes.topics.get_key_value(name).ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "this edge does not serve that topic: see topics.names")
    })?;
    let query = StreamQuery::of(request)?;
    let from = match query.last_id.clone() {
        None => StartAt::Now,
        Some(id) if id == "oldest" => StartAt::Oldest,
        Some(id) if id == INCOMPLETE => StartAt::Lost(ResetReason::Incomplete),
        Some(id) => match (id.len() <= MAX_ID_BYTES).then(|| EventPosition::parse(&id)).flatten() {
            Some(place) => StartAt::After(place),
            None => StartAt::Lost(ResetReason::UnknownId),
        },
    };
    let key = query_of(request, "key").map(Bytes::from);
    let listen = Listen { topic: topic.clone(), steps: steps.clone(), key, from };
    let streams = routes.streams.clone();
    let start = Box::new(move |stream, hello| streams.admit(stream, hello, listen));
    Ok(open(request, &routes.shared, &query, Part { start, expires }, false))
}
