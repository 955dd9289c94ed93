//! What the handlers of all jobs need: methods, bodies, guards; and the routes that belong to no job.

use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{StatusCode, header};
use actix_web::middleware::Next;
use actix_web::{
    FromRequest, Handler, HttpMessage as _, HttpRequest, HttpResponse, Resource, Responder, web,
};
use bytes::Bytes;
use serde_json::json;

use crate::http::auth::Forged;
use crate::http::problem::{Answer, Problem, json_now};
use crate::http::query::MAX_ID_BYTES;
use crate::http::shared::Shared;

/// Length in bytes of the longest query that is accepted: a last id and 8 KB for the rest, of which a token is the
/// longest part. actix-web itself accepts a head of 128 KB, 96 headers and a URL of 64 KB, and answers 431 or 400
/// above.
const MAX_QUERY_BYTES: usize = MAX_ID_BYTES + 8 * 1024;

/// Registers the routes that belong to no job, and the response to all other paths.
pub(crate) fn configure(app: &mut web::ServiceConfig) {
    app.service(readable("/v1/edges", edges)).default_service(web::to(not_found));
}

/// Lists the public URLs of all edges.
async fn edges(shared: web::Data<Shared>) -> HttpResponse {
    json_now(&json!({ "edges": shared.http.edges }))
}

/// Answers a path that no route has.
async fn not_found(request: HttpRequest) -> Answer {
    let detail = format!("there is no {} {}", request.method(), request.path());
    Err(Problem::new(StatusCode::NOT_FOUND, detail))
}

/// Returns a resource that answers GET and HEAD by `read`.
pub(crate) fn readable<F: Handler<Args>, Args: FromRequest + 'static>(path: &str, read: F) -> Resource
where
    F::Output: Responder + 'static,
{
    only("GET, HEAD", web::resource(path).route(web::get().to(read.clone())).route(web::head().to(read)))
}

/// Returns a resource that answers POST by `post`.
pub(crate) fn postable<F: Handler<Args>, Args: FromRequest + 'static>(path: &str, post: F) -> Resource
where
    F::Output: Responder + 'static,
{
    only("POST", web::resource(path).route(web::post().to(post)))
}

/// Answers every other method with 405 and an `Allow` header.
pub(crate) fn only(allow: &'static str, resource: Resource) -> Resource {
    resource.default_service(web::to(move |request: HttpRequest| async move {
        let detail = format!("{} does not take {}, but {allow}", request.path(), request.method());
        let allow = header::HeaderValue::from_static(allow);
        Err::<HttpResponse, _>(
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail).with_header(header::ALLOW, allow),
        )
    }))
}

/// Reads the body of a request, of at most `max_bytes`. Call it after the request's token was found good: until then
/// nothing of the body is kept.
///
/// # Errors
/// If the body is too long, or the connection breaks before its end.
pub(crate) async fn read_body(body: web::Payload, max_bytes: usize) -> Result<Bytes, Problem> {
    match body.to_bytes_limited(max_bytes).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => {
            Err(Problem::new(error.as_response_error().status_code(), format!("the body: {error}")))
        }
        Err(_) => {
            let detail = format!("the body has more than {max_bytes} bytes");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail))
        }
    }
}

/// Returns the request's `Idempotency-Key`, by which the repetitions of a request are recognised.
pub(crate) fn idempotency_key(request: &HttpRequest) -> Option<&str> {
    let key = request.headers().get("idempotency-key")?.to_str().ok()?;
    // Clients that follow RFC 8941 put the key in quotes.
    Some(key.trim().trim_matches('"'))
}

/// Middleware: refuses a query that is too long, and marks [`Forged`] requests, which a page of a foreign origin has
/// its visitor's browser make.
pub(crate) async fn guard_request(
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let origins = request.app_data::<web::Data<Shared>>().map(|shared| &*shared.http.cors_origins);
    if Forged::is(request.method(), request.headers(), origins.unwrap_or_default()) {
        request.extensions_mut().insert(Forged);
    }
    if request.query_string().len() > MAX_QUERY_BYTES {
        let detail = format!("the query has more than {MAX_QUERY_BYTES} bytes");
        let problem: HttpResponse = Problem::new(StatusCode::URI_TOO_LONG, detail).into();
        return Ok(request.into_response(problem));
    }
    next.call(request).await
}
