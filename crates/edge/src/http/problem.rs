//! Answers that say no, as RFC 9457 wants them.

use std::fmt::Display;

use actix_web::HttpResponse;
use actix_web::http::{StatusCode, header};
use serde::Serialize;
use serde_json::json;
use tonic::{Code, Status};
use tutti_service::grpc;

use crate::http::auth::Refusal;
use crate::http::open::Shared;
use crate::http::upstream::{is_passing, reason};

/// What clients are told where a service, or a Redis, behind this edge does not answer,
const AWAY: &str = "what is needed to answer does not answer at the moment; try again";
/// and where something failed that will fail again.
pub(crate) const FAILED: &str = "the server failed";
/// The member of a problem document that names the line of the log that says more.
const REQUEST_ID: &str = "requestId";

/// What a handler answers, or why it does not.
pub(crate) type Answer = Result<HttpResponse, HttpResponse>;

pub(crate) fn either(answer: Answer) -> HttpResponse {
    answer.unwrap_or_else(|refusal| refusal)
}

/// What was asked for, as it is now.
pub(crate) fn ok(body: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(body)
}

/// A request that cannot be meant.
pub(crate) fn bad(why: &str) -> HttpResponse {
    problem(StatusCode::BAD_REQUEST, why)
}

/// A problem, in a sentence.
pub(crate) fn problem(status: StatusCode, detail: &str) -> HttpResponse {
    problem_of(status, detail, &[])
}

/// The same, to be tried again in a moment.
pub(crate) fn unavailable(detail: &str) -> HttpResponse {
    retry_later(problem(StatusCode::SERVICE_UNAVAILABLE, detail))
}

/// A request without the right to what it asked for, or of which that cannot be told yet.
pub(crate) fn refused(shared: &Shared, refusal: &Refusal) -> HttpResponse {
    let status = match refusal {
        Refusal::Unchecked => return unavailable(&refusal.to_string()),
        Refusal::Scope(_) => StatusCode::FORBIDDEN,
        Refusal::Missing | Refusal::Invalid(_) => StatusCode::UNAUTHORIZED,
    };
    shared.metrics.refused.inc();
    let mut response = problem(status, &refusal.to_string());
    response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    response
}

/// What one of the services says against it. Only where it gives a word for its reason the message is meant for
/// strangers; any other tells of the inside and goes to the log.
pub(crate) fn of_service(shared: &Shared, status: &Status) -> HttpResponse {
    let Some(word) = reason(status) else {
        return failed(shared, !is_passing(status), "a call of a service", status);
    };
    let code = match (status.code(), word) {
        (Code::Unavailable | Code::ResourceExhausted, _) => StatusCode::SERVICE_UNAVAILABLE,
        // Who holds the token of a ticket that is forgotten has nothing any more.
        (Code::NotFound, "no_ticket") => StatusCode::GONE,
        (Code::NotFound, _) => StatusCode::NOT_FOUND,
        (Code::FailedPrecondition, _) => StatusCode::CONFLICT,
        (Code::InvalidArgument, _) => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let id = status.metadata().get(grpc::REQUEST_ID).and_then(|id| id.to_str().ok());
    if code == StatusCode::SERVICE_UNAVAILABLE {
        // No word for programs: they try again, whatever it was.
        return retry_later(problem_of(code, status.message(), &[(REQUEST_ID, id)]));
    }
    problem_of(code, status.message(), &[("reason", Some(word)), (REQUEST_ID, id)])
}

/// What a Redis behind this edge could not be asked.
pub(crate) fn of_redis(shared: &Shared, doing: &str, error: &tutti_feed::Error) -> HttpResponse {
    failed(shared, error.is_internal(), doing, error)
}

/// A failure that is not the client's, which is told a fixed sentence and a request id; the log has the error.
fn failed(shared: &Shared, is_internal: bool, doing: &str, error: &dyn Display) -> HttpResponse {
    let id = shared.failures.log(doing, error);
    let more = [(REQUEST_ID, Some(id.as_str()))];
    if is_internal {
        problem_of(StatusCode::INTERNAL_SERVER_ERROR, FAILED, &more)
    } else {
        retry_later(problem_of(StatusCode::SERVICE_UNAVAILABLE, AWAY, &more))
    }
}

fn retry_later(mut response: HttpResponse) -> HttpResponse {
    response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("2"));
    response
}

fn problem_of(status: StatusCode, detail: &str, more: &[(&str, Option<&str>)]) -> HttpResponse {
    HttpResponse::build(status)
        .content_type("application/problem+json")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(problem_text(status, detail, more))
}

/// The JSON of a problem, with the members of `more` that there are.
pub(crate) fn problem_text(status: StatusCode, detail: &str, more: &[(&str, Option<&str>)]) -> String {
    let mut body = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("error"),
        "status": status.as_u16(),
        "detail": detail,
    });
    for (name, value) in more {
        if let Some(value) = value {
            body[*name] = (*value).into();
        }
    }
    body.to_string()
}
