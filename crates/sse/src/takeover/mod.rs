//! actix-web parses, routes, authorises and writes the response head; then the socket is taken out
//! of it and given to the worker's hub.
//!
//! A stream handler puts an [`Admission`](crate::hub::Admission) into the connection's [`Slot`] and answers with
//! [`response`]: an empty body of unknown length. The dispatcher flushes the head, finds the body
//! at its end, and shuts the connection down; [`Io::poll_shutdown`] hands the socket over instead.
//! A stream then costs what its socket costs, and none of the dispatcher's buffers.
//!
//! actix-web is handed one request at a time ([`inflow`]), so that a client that sends many and takes no answers
//! costs no more than one that sends one. [`in_turn`] tells [`Io`] when a request has begun and was answered. Until
//! then nothing more is read, not even the end of what the client sends: a client may close its side of the
//! connection behind a request and still get the answer.
//!
//! Of what a client leaves unfinished actix times only the head of a connection's first request, and a
//! connection on which nothing follows at all. The heads of later ones, bodies, also those that no handler
//! reads, and answers that are not taken are timed here: by [`Io`], for all in one way. And where a connection
//! has sent nothing at all, actix would answer 408: a client that keeps spare connections, as many do, might
//! take that as the answer to a request that it is just then writing. Such a connection ends without a word.
//!
//! What actix answers by itself, to what it cannot read as a request, has no body. Here a problem document takes its
//! place by the function in [`Terms`]. Behind the answer to a request whose body is malformed actix adds one of its own, without a
//! body, and ends the connection.

mod inflow;
mod io;
mod slot;

use std::io::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::http::{StatusCode, Version, header};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};

use crate::coding::Coding;

pub use io::{Io, LINGER, LINGERING, Terms};
pub use slot::{AnswerBody, Slot, in_turn};

/// The response head of a stream, written by actix; what follows it is the hub's.
pub fn response(request: &HttpRequest, coding: Coding) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response
        .force_close()
        .insert_header((header::CONTENT_TYPE, "text/event-stream; charset=utf-8"))
        .insert_header((header::CACHE_CONTROL, "no-store, no-transform"))
        // nginx holds responses back otherwise.
        .insert_header(("x-accel-buffering", "no"))
        .insert_header((header::VARY, "accept-encoding"));
    if let Some(name) = coding.name() {
        response.insert_header((header::CONTENT_ENCODING, name));
    }
    if request.version() >= Version::HTTP_11 {
        response.insert_header((header::TRANSFER_ENCODING, "chunked"));
    }
    let mut response = response.body(BoxBody::new(Untaken));
    response.head_mut().no_chunking(true);
    debug_assert_eq!(response.status(), StatusCode::OK);
    response
}

/// A body of unknown length that ends at once.
struct Untaken;

impl MessageBody for Untaken {
    type Error = Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        Poll::Ready(None)
    }
}
