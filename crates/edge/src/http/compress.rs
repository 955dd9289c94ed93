//! Compression of documents for clients that accept gzip. Streams are compressed frame by frame: see
//! [`tutti_sse::coding`].

use std::io::Write as _;

use actix_web::body::{BodySize, BoxBody, MessageBody as _};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    self, AcceptEncoding, ContentEncoding, Encoding, Header as _, HeaderMap, HeaderValue,
};
use actix_web::middleware::Next;
use actix_web::{HttpRequest, web};
use flate2::Compression;
use flate2::write::GzEncoder;

/// Length of the shortest document that is compressed. A shorter one gains nothing.
pub(crate) const MIN_COMPRESSED_BYTES: usize = 1024;
/// Length of the longest document that is compressed on the worker thread. A longer one would delay the streams there,
/// so another thread compresses it.
const MAX_BYTES_AT_ONCE: usize = 64 * 1024;
/// Level of compression. It is twice as fast as the default, for a tenth more bytes.
const LEVEL: u32 = 3;

const ACCEPT_ENCODING: &str = "accept-encoding";

/// Returns a writer that compresses what is written to it.
pub(crate) fn gzip_writer() -> GzEncoder<Vec<u8>> {
    GzEncoder::new(Vec::new(), Compression::new(LEVEL))
}

/// Whether the client prefers gzip to the document as it is.
pub(crate) fn takes_gzip(request: &HttpRequest) -> bool {
    let offered = [Encoding::gzip(), Encoding::identity()];
    let taken = AcceptEncoding::parse(request).ok().and_then(|accepts| accepts.negotiate(offered.iter()));
    matches!(taken, Some(Encoding::Known(ContentEncoding::Gzip)))
}

/// Middleware: compresses a response whose body lies in memory as a whole. Streams, and bodies that are sent in parts,
/// pass unchanged.
pub(crate) async fn compress_documents(
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let mut answer = next.call(request).await?;
    if !is_document(&answer) {
        return Ok(answer);
    }
    vary_by_encoding(answer.headers_mut());
    if !takes_gzip(answer.request()) {
        return Ok(answer);
    }
    let (request, answer) = answer.into_parts();
    let (mut head, body) = answer.into_parts();
    let text = match body.try_into_bytes() {
        Ok(text) => text,
        Err(body) => return Ok(ServiceResponse::new(request, head.set_body(body))),
    };
    let bytes =
        if text.len() > MAX_BYTES_AT_ONCE { web::block(move || gzip(&text)).await? } else { gzip(&text) };
    head.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Ok(ServiceResponse::new(request, head.set_body(BoxBody::new(bytes))))
}

/// Returns the text, compressed.
fn gzip(text: &[u8]) -> Vec<u8> {
    let mut coder = gzip_writer();
    coder.write_all(text).and_then(|()| coder.finish()).expect("memory takes what is written")
}

/// Whether a response is a document worth compressing: JSON or HTML of at least [`MIN_COMPRESSED_BYTES`], not
/// compressed yet.
fn is_document(answer: &ServiceResponse<BoxBody>) -> bool {
    let BodySize::Sized(length) = answer.response().body().size() else { return false };
    let headers = answer.headers();
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_text = content_type.is_some_and(|text| {
        let essence = text.split(';').next().unwrap_or_default().trim();
        essence == "application/json" || essence.ends_with("+json") || essence == "text/html"
    });
    is_text && length >= MIN_COMPRESSED_BYTES as u64 && !headers.contains_key(header::CONTENT_ENCODING)
}

/// Adds `Vary: accept-encoding`, unless it is there.
fn vary_by_encoding(headers: &mut HeaderMap) {
    let says_so = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| text.split(',').any(|name| name.trim() == ACCEPT_ENCODING))
    };
    if !headers.get_all(header::VARY).any(says_so) {
        headers.append(header::VARY, HeaderValue::from_static(ACCEPT_ENCODING));
    }
}
