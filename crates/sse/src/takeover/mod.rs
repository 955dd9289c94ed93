//! Takes the socket of a stream out of actix-web, and gives it to the worker's hub.
//!
//! actix-web parses, routes and authorises a request and writes the response head. The handler of a stream leaves an
//! [`Admission`](crate::hub::Admission) in the connection's [`Slot`] and answers with [`response`]: an empty body of
//! unknown length. The dispatcher of actix-web flushes the head, finds the body at its end, and shuts the connection
//! down; [`Io`] hands the socket to the hub instead of closing it. A stream then costs what its socket costs, and not
//! the two buffers of 8 KB that the dispatcher would hold for as long as it lives.
//!
//! actix-web decodes everything that it has read before it looks at responses that wait. So [`Io`] hands it one request
//! at a time ([`inflow`]): a client that sends many requests and takes no responses costs no more than one that sends
//! one. The middleware [`in_turn`] tells [`Io`] when a request has begun and when it was answered. Until then nothing more is
//! read, not even the end of what the client sends: a client may close its side of the connection behind a request and
//! still get the response.
//!
//! actix-web times only the head of a connection's first request and a connection on which nothing follows. [`Io`] times
//! everything else that a client may leave unfinished: heads of later requests, bodies, and responses that are not
//! taken. To a connection that has sent nothing at all actix-web would answer 408, and a client that keeps spare
//! connections might take that as the response to a request that it is just writing. Such a connection is closed without a word.
//!
//! What actix-web answers to bytes that it cannot read as a request has no body. The response of the function in
//! [`Terms`] takes its place. Behind the response to a request whose body is malformed actix-web adds one of its own, without a
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

/// Returns the response head of a stream, which actix-web writes. The hub writes what follows it.
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

/// A body of unknown length that ends at once, so that actix-web gives up the connection.
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
