//! Documents, compressed for clients that take gzip. Streams are compressed otherwise: see [`tutti_sse::coding`].

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

/// A shorter document gains nothing.
pub(crate) const MIN_COMPRESSED_BYTES: usize = 1024;
/// A longer document is compressed away from the threads that write streams.
const MAX_BYTES_AT_ONCE: usize = 64 * 1024;
/// Twice as fast as the default, for a tenth more bytes.
const LEVEL: u32 = 3;

const ACCEPT_ENCODING: &str = "accept-encoding";

/// Compresses what is written to it.
pub(crate) fn gzip_writer() -> GzEncoder<Vec<u8>> {
    GzEncoder::new(Vec::new(), Compression::new(LEVEL))
}

/// Whether the client would rather have gzip than the document as it is.
pub(crate) fn takes_gzip(request: &HttpRequest) -> bool {
    let ours = [Encoding::gzip(), Encoding::identity()];
    let taken = AcceptEncoding::parse(request).ok().and_then(|accepts| accepts.negotiate(ours.iter()));
    matches!(taken, Some(Encoding::Known(ContentEncoding::Gzip)))
}

/// Compresses answers that lie in memory as a whole. Streams and parts of larger bodies pass as they are.
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

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut coder = gzip_writer();
    coder.write_all(text).and_then(|()| coder.finish()).expect("memory takes what is written")
}

/// Whether it is a text of some length that is not compressed.
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

fn vary_by_encoding(headers: &mut HeaderMap) {
    let says_so = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| text.split(',').any(|name| name.trim() == ACCEPT_ENCODING))
    };
    if !headers.get_all(header::VARY).any(says_so) {
        headers.append(header::VARY, HeaderValue::from_static(ACCEPT_ENCODING));
    }
}
