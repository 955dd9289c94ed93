//! actix-web parses, routes, authorises and writes the response head; then the socket is taken out
//! of it and given to the worker's hub.
//!
//! A stream handler puts an [`Admission`] into the connection's [`Slot`] and answers with
//! [`response`]: an empty body of unknown length. The dispatcher flushes the head, finds the body
//! at its end, and shuts the connection down; [`Io::poll_shutdown`] hands the socket over instead.
//! A stream then costs what its socket costs, and none of the dispatcher's buffers.

use std::cell::RefCell;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::http::{StatusCode, Version, header};
use actix_web::rt::net::TcpStream;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::hub::{Admission, Hub};

/// actix itself waits for ever until a client takes the rest of a response.
const STALL: Duration = Duration::from_secs(30);

/// Where a handler leaves what the hub needs to know of a stream.
#[derive(Clone, Default)]
pub(crate) struct Slot(Rc<RefCell<Option<Admission>>>);

impl Slot {
    pub(crate) fn put(&self, admission: Admission) {
        *self.0.borrow_mut() = Some(admission);
    }
}

/// A connection that can be taken away from actix.
pub(crate) struct Io {
    socket: Option<TcpStream>,
    /// When a client that takes nothing of a response is given up.
    stalled: Option<Pin<Box<Sleep>>>,
    slot: Slot,
    hub: Rc<Hub>,
}

impl Io {
    pub(crate) fn new(socket: TcpStream, hub: Rc<Hub>) -> Self {
        Self { socket: Some(socket), stalled: None, slot: Slot::default(), hub }
    }

    pub(crate) fn slot(&self) -> Slot {
        self.slot.clone()
    }

    fn socket(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.socket.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.socket()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.socket()?.poll_write(cx, buf);
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        ready!(self.stalled.get_or_insert_with(|| Box::pin(sleep(STALL))).as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.socket.is_none() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.socket()?.poll_flush(cx))?;
        let admission = self.slot.0.borrow_mut().take();
        let Some(admission) = admission else { return self.socket()?.poll_shutdown(cx) };
        if let Some(socket) = self.socket.take() {
            self.hub.clone().admit(socket, admission);
        }
        Poll::Ready(Ok(()))
    }
}

/// The response head of a stream, written by actix; what follows it is the hub's.
pub(crate) fn response(request: &HttpRequest) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response
        .force_close()
        .insert_header((header::CONTENT_TYPE, "text/event-stream; charset=utf-8"))
        .insert_header((header::CACHE_CONTROL, "no-store, no-transform"))
        // nginx holds responses back otherwise.
        .insert_header(("x-accel-buffering", "no"));
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
    type Error = io::Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        Poll::Ready(None)
    }
}
