//! Answers that say no, as RFC 9457 wants them.

use actix_web::HttpResponse;
use actix_web::http::{StatusCode, header};
use serde::Serialize;
use serde_json::json;
use tonic::{Code, Status};

use crate::auth::Refusal;
use crate::replicas::{is_passing, reason};
use crate::routes::Shared;

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
    problem_of(status, detail, None)
}

/// The same, to be tried again in a moment.
pub(crate) fn unavailable(detail: &str) -> HttpResponse {
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, detail);
    response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("2"));
    response
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

/// What the waiting room's service says against it; its word for the reason is in `reason`.
pub(crate) fn of_service(status: &Status) -> HttpResponse {
    let word = reason(status);
    let code = match (status.code(), word) {
        _ if is_passing(status) => return unavailable(status.message()),
        (Code::ResourceExhausted, _) => return unavailable(status.message()),
        // Who holds the token of a ticket that is forgotten has nothing any more.
        (Code::NotFound, Some("no_ticket")) => StatusCode::GONE,
        (Code::NotFound, _) => StatusCode::NOT_FOUND,
        (Code::FailedPrecondition, _) => StatusCode::CONFLICT,
        (Code::InvalidArgument, _) => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    problem_of(code, status.message(), word)
}

fn problem_of(status: StatusCode, detail: &str, reason: Option<&str>) -> HttpResponse {
    HttpResponse::build(status)
        .content_type("application/problem+json")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(problem_text(status, detail, reason))
}

/// The JSON of a problem.
pub(crate) fn problem_text(status: StatusCode, detail: &str, reason: Option<&str>) -> String {
    let mut body = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("error"),
        "status": status.as_u16(),
        "detail": detail,
    });
    if let Some(reason) = reason {
        body["reason"] = reason.into();
    }
    body.to_string()
}
