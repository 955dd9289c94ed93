//! Errors that a client receives, as problem documents (RFC 9457).

use std::fmt::{self, Display};

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use serde_json::json;
use tonic::{Code, Status};
use tutti_service::{Failures, grpc};

use crate::http::refusal::Refusal;
use crate::http::upstream::{is_passing, reason};
use crate::metrics::Metrics;

/// The detail of a problem if a service or Redis behind this edge does not answer.
const AWAY: &str = "a service behind this edge does not answer at the moment; try again";
/// The detail of a problem if a request failed and would fail again.
const FAILED: &str = "the server failed";
/// The member of a problem document with the request id, under which the log has the details.
const REQUEST_ID: &str = "requestId";

/// What a handler returns: a response, or the problem that the client receives instead.
pub(crate) type Answer = Result<HttpResponse, Problem>;

/// Why a request is not answered as it asks. A handler returns it as its error; the client receives it as a problem
/// document.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
    /// Members beside those of RFC 9457.
    members: Vec<(&'static str, String)>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// Returns a problem with this status. `detail` is a sentence that says what is wrong and what to do.
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), members: Vec::new(), headers: Vec::new() }
    }

    /// Returns the problem of a request that cannot be understood: 400.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// Returns the problem of a request that may succeed when it is repeated soon: 503, with `Retry-After`.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_later()
    }

    /// Returns the problem of a request whose token is refused, and counts it: 401, or 403 if the token lacks a scope.
    /// If the token cannot be checked yet, the problem is 503 and is not counted.
    pub(crate) fn refused(metrics: &Metrics, refusal: &Refusal) -> Self {
        let status = match refusal {
            Refusal::Unchecked => return Self::unavailable(refusal.to_string()),
            Refusal::Scope(_) => StatusCode::FORBIDDEN,
            Refusal::Missing | Refusal::Invalid(_) => StatusCode::UNAUTHORIZED,
        };
        metrics.refused.inc();
        Self::new(status, refusal.to_string())
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// Returns the problem of a call that a gRPC service did not answer with success. If the service names a reason,
    /// its message is meant for clients and becomes the detail. Any other message describes the inside and goes to the
    /// log.
    pub(crate) fn of_service(failures: &Failures, status: &Status) -> Self {
        let Some(word) = reason(status) else {
            return Self::failed(failures, !is_passing(status), "a call of a service", status);
        };
        let code = match (status.code(), word) {
            (Code::Unavailable | Code::ResourceExhausted, _) => StatusCode::SERVICE_UNAVAILABLE,
            // The client holds the token of a ticket that the room has forgotten.
            (Code::NotFound, "no_ticket") => StatusCode::GONE,
            (Code::NotFound, _) => StatusCode::NOT_FOUND,
            (Code::FailedPrecondition, _) => StatusCode::CONFLICT,
            (Code::InvalidArgument, _) => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut problem = Self::new(code, status.message());
        if code == StatusCode::SERVICE_UNAVAILABLE {
            // The reason is left out: a program tries again, whatever it was.
            problem = problem.retry_later();
        } else {
            problem.members.push(("reason", word.to_owned()));
        }
        let id = status.metadata().get(grpc::REQUEST_ID).and_then(|id| id.to_str().ok());
        problem.members.extend(id.map(|id| (REQUEST_ID, id.to_owned())));
        problem
    }

    /// Returns the problem of a request to Redis that failed. `doing` says in the log what was tried.
    pub(crate) fn of_redis(failures: &Failures, doing: &str, error: &tutti_feed::Error) -> Self {
        Self::failed(failures, error.is_internal(), doing, error)
    }

    /// Returns the problem of a failure that is not the client's: 500 if `is_internal`, else 503. The client receives a
    /// fixed sentence and a request id; the log has the error under the same id.
    fn failed(failures: &Failures, is_internal: bool, doing: &str, error: &dyn Display) -> Self {
        let id = failures.log(doing, error);
        let mut problem = if is_internal {
            Self::new(StatusCode::INTERNAL_SERVER_ERROR, FAILED)
        } else {
            Self::unavailable(AWAY)
        };
        problem.members.push((REQUEST_ID, id));
        problem
    }

    /// Adds a header to the response.
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Adds a `Retry-After` of two seconds.
    fn retry_later(self) -> Self {
        self.with_header(header::RETRY_AFTER, HeaderValue::from_static("2"))
    }

    /// Returns the status of the response.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the sentence that says what is wrong.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// Returns the document as JSON.
    fn body(&self) -> String {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        for (name, value) in &self.members {
            body[*name] = value.as_str().into();
        }
        body.to_string()
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        response
            .content_type("application/problem+json")
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
        for (name, value) in &self.headers {
            response.insert_header((name.clone(), value.clone()));
        }
        response.body(self.body())
    }
}

impl From<Problem> for HttpResponse {
    fn from(problem: Problem) -> Self {
        problem.error_response()
    }
}

/// Returns a response with JSON about the present, which no cache may keep.
pub(crate) fn json_now(body: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(body)
}

/// Middleware: makes a problem document of every error that a request meets outside of a handler, such as a header that
/// cannot be read or an origin that CORS forbids.
pub(crate) async fn problem_documents<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let response = next.call(request).await.map_err(|error| {
        let problem = problem_of_error(&error).unwrap_or_else(|| error.error_response());
        InternalError::from_response(error, problem)
    })?;
    let Some(problem) = response.response().error().and_then(problem_of_error) else {
        return Ok(response.map_into_boxed_body());
    };
    // The headers of CORS were set on the response that the document replaces.
    let kept = response.headers().clone();
    let mut response = response.into_response(problem);
    for (name, value) in kept {
        if !response.headers().contains_key(&name) {
            response.headers_mut().append(name, value);
        }
    }
    Ok(response)
}

/// Returns the problem document of an error of actix-web; `None` if the error is a [`Problem`], whose response is a
/// document already.
fn problem_of_error(error: &actix_web::Error) -> Option<HttpResponse> {
    if error.as_error::<Problem>().is_some() {
        return None;
    }
    let status = error.as_response_error().status_code();
    // The text of a server's error describes the inside.
    let detail = if status.is_server_error() { FAILED.to_owned() } else { error.to_string() };
    Some(Problem::new(status, detail).error_response())
}

/// Returns the whole response, head and body, to bytes that actix-web cannot read as a request.
pub(crate) fn unreadable_request(status: StatusCode) -> String {
    let detail = match status {
        StatusCode::REQUEST_TIMEOUT => "the head of the request did not arrive in time",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            "the head of a request may have at most 128 KB and 96 header fields"
        }
        _ => "the bytes received are not a request of HTTP/1.1",
    };
    let body = Problem::new(status, detail).body();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
        cache-control: no-store\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n",
        body.len()
    );
    head + &body
}
