//! actix-web parses, routes, authorises and writes the response head; then the socket is taken out
//! of it and given to the worker's hub.
//!
//! A stream handler puts an [`Admission`] into the connection's [`Slot`] and answers with
//! [`response`]: an empty body of unknown length. The dispatcher flushes the head, finds the body
//! at its end, and shuts the connection down; [`Io::poll_shutdown`] hands the socket over instead.
//! A stream then costs what its socket costs, and none of the dispatcher's buffers.
//!
//! Of what a client leaves unfinished actix times only the head of a connection's first request, and a
//! connection on which nothing follows at all. The heads of later ones, bodies, also those that no handler
//! reads, and answers that are not taken are timed here: by [`Io`], for all in one way. And where a connection
//! has sent nothing at all, actix would answer 408: a client that keeps spare connections, as many do, might
//! take that as the answer to a request that it is just then writing. Such a connection ends without a word.

use std::cell::{Cell, RefCell};
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
use tokio::time::{Instant, Sleep, sleep};

use crate::coding::Coding;
use crate::counts::Counted;
use crate::hub::{Admission, Hub};

/// What is known of a connection on both sides of actix: where a handler leaves what the hub needs to know of
/// a stream.
#[derive(Clone)]
pub(crate) struct Slot(Rc<State>);

struct State {
    admission: RefCell<Option<Admission>>,
    /// When it was accepted, its last request's head was there, or the last bytes of a response were taken.
    moved: Cell<Instant>,
}

impl Slot {
    pub(crate) fn put(&self, admission: Admission) {
        *self.0.admission.borrow_mut() = Some(admission);
    }

    /// Whether a stream was asked for here before; it is given up.
    pub(crate) fn give_up(&self) -> bool {
        self.0.admission.borrow_mut().take().is_some()
    }

    /// The client did what was waited for.
    pub(crate) fn moved(&self) {
        self.0.moved.set(Instant::now());
    }
}

/// A connection that can be taken away from actix.
pub(crate) struct Io {
    socket: Option<TcpStream>,
    /// How long nothing may move.
    patience: Duration,
    /// Ends no later than the patience.
    timer: Pin<Box<Sleep>>,
    /// Whether anything was read.
    spoken: bool,
    slot: Slot,
    hub: Rc<Hub>,
    _counted: Counted,
}

impl Io {
    pub(crate) fn new(socket: TcpStream, hub: Rc<Hub>, patience: Duration, counted: Counted) -> Self {
        let state = State { admission: RefCell::default(), moved: Cell::new(Instant::now()) };
        let (slot, timer) = (Slot(Rc::new(state)), Box::pin(sleep(patience)));
        Self { socket: Some(socket), patience, timer, spoken: false, slot, hub, _counted: counted }
    }

    pub(crate) fn slot(&self) -> Slot {
        self.slot.clone()
    }

    fn socket(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.socket.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Ready when nothing has moved for too long.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let until = self.slot.0.moved.get() + self.patience;
            if until <= Instant::now() {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            self.timer.as_mut().reset(until);
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = self.socket()?.poll_read(cx, buf);
        if read.is_ready() {
            self.spoken |= buf.filled().len() > before;
            return read;
        }
        self.poll_patience(cx).map(Err)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if !self.spoken {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let written = self.socket()?.poll_write(cx, buf);
        if written.is_ready() {
            self.slot.moved();
            return written;
        }
        self.poll_patience(cx).map(Err)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.socket.is_none() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.socket()?.poll_flush(cx))?;
        let admission = self.slot.0.admission.borrow_mut().take();
        let Some(admission) = admission else { return self.socket()?.poll_shutdown(cx) };
        if let Some(socket) = self.socket.take() {
            self.hub.clone().admit(socket, admission);
        }
        Poll::Ready(Ok(()))
    }
}

/// The response head of a stream, written by actix; what follows it is the hub's.
pub(crate) fn response(request: &HttpRequest, coding: Coding) -> HttpResponse {
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
    type Error = io::Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        Poll::Ready(None)
    }
}
