//! actix-web parses, routes, authorises and writes the response head; then the socket is taken out
//! of it and given to the worker's hub.
//!
//! A stream handler puts an [`Admission`] into the connection's [`Slot`] and answers with
//! [`response`]: an empty body of unknown length. The dispatcher flushes the head, finds the body
//! at its end, and shuts the connection down; [`Io::poll_shutdown`] hands the socket over instead.
//! A stream then costs what its socket costs, and none of the dispatcher's buffers.
//!
//! actix-web is handed one request at a time ([`Inflow`]), so that a client that sends many and takes no answers
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
//! place ([`own_answer`]). Behind the answer to a request whose body is malformed actix adds one of its own, without a
//! body, and ends the connection.

use std::cell::{Cell, RefCell};
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::{InternalError, PayloadError};
use actix_web::http::{StatusCode, Version, header};
use actix_web::middleware::Next;
use actix_web::rt::net::TcpStream;
use actix_web::rt::spawn;
use actix_web::web::Bytes;
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::http::problem::{FAILED, problem, problem_text};
use crate::metrics::{Metrics, Unreadable};
use crate::sse::coding::Coding;
use crate::sse::hub::{Admission, Hub};
use crate::sse::inflow::{Framing, Inflow};
use crate::sse::limits::Counted;

/// For how long what a client still sends is read on, behind an answer that ends its connection: a reset could take
/// the answer away. As long as `actix_web::HttpServer` has it.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// Connections of a worker that are read on so after an answer of actix's own; others end at once.
pub(crate) const LINGERING: usize = 64;

/// What is known of a connection on both sides of actix: where a handler leaves what the hub needs to know of
/// a stream.
#[derive(Clone)]
pub(crate) struct Slot(Rc<State>);

struct State {
    admission: RefCell<Option<Admission>>,
    /// When it was accepted, its last request's head was there, or the last bytes of a response were taken.
    moved: Cell<Instant>,
    /// A request that actix has begun, and [`Io`] has not noticed yet.
    begun: Cell<Option<Framing>>,
    /// Bytes of the request's body that its handler has taken; all there can be, once it takes no more.
    taken: Cell<u64>,
    /// All of an answer is with actix, if not with the client yet.
    is_answered: Cell<bool>,
    /// Waits until a request has begun, or more of its body may be handed on.
    reader: Cell<Option<Waker>>,
}

impl Slot {
    pub(crate) fn put(&self, admission: Admission) {
        *self.0.admission.borrow_mut() = Some(admission);
    }

    /// A request begins: its head was read, and its time runs from now on.
    fn begin(&self, framing: Framing) -> Answering {
        self.0.moved.set(Instant::now());
        self.0.begun.set(Some(framing));
        self.0.taken.set(0);
        self.wake();
        Answering(self.clone())
    }

    /// Takes note of how much of a body its handler has taken.
    fn taken(&self, bytes: u64) {
        self.0.taken.set(self.0.taken.get().saturating_add(bytes));
        self.wake();
    }

    fn wake(&self) {
        if let Some(reader) = self.0.reader.take() {
            reader.wake();
        }
    }
}

/// A request that is being answered, until this is dropped.
struct Answering(Slot);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.is_answered.set(true);
    }
}

/// A body that is being answered with.
pub(crate) struct AnswerBody {
    body: BoxBody,
    _until_it_is_written: Option<Answering>,
}

impl MessageBody for AnswerBody {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}

/// A request's body, on its way to a handler.
struct RequestBody {
    payload: Payload,
    slot: Slot,
}

impl Stream for RequestBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(Pin::new(&mut self.payload).poll_next(cx));
        if let Some(Ok(bytes)) = &next {
            self.slot.taken(bytes.len() as u64);
        }
        Poll::Ready(next)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.slot.taken(u64::MAX);
    }
}

/// Tells a request's connection when the request has begun, what its handler takes of the body, and when all of the
/// answer is with actix-web. The outermost of all that a request passes.
pub(crate) async fn in_turn<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<AnswerBody>, actix_web::Error> {
    let slot = request.conn_data::<Slot>().cloned();
    let answering = slot.map(|slot| {
        let payload = request.take_payload();
        let framing = framing_of(&request, &payload);
        let answering = slot.begin(framing);
        request.set_payload(match payload {
            Payload::None => Payload::None,
            payload => Payload::Stream { payload: Box::pin(RequestBody { payload, slot }) },
        });
        answering
    });
    let response = next.call(request).await.map_err(|error| {
        let problem = problem_of_error(&error);
        InternalError::from_response(error, problem)
    })?;
    let response = match response.response().error().map(problem_of_error) {
        Some(problem) => {
            // Whether a page of another origin may read it was decided for the answer that it replaces.
            let kept = response.headers().clone();
            let mut response = response.into_response(problem);
            for (name, value) in kept {
                if !response.headers().contains_key(&name) {
                    response.headers_mut().append(name, value);
                }
            }
            response
        }
        None => response.map_into_boxed_body(),
    };
    Ok(response.map_body(|_, body| AnswerBody { body, _until_it_is_written: answering }))
}

/// The answer to what actix-web refuses before a handler is asked.
fn problem_of_error(error: &actix_web::Error) -> HttpResponse {
    let status = error.as_response_error().status_code();
    if status.is_server_error() {
        // Its text is of the inside.
        return problem(status, FAILED);
    }
    problem(status, &error.to_string())
}

/// How the end of a request's body is told, as actix-web has understood it.
fn framing_of(request: &ServiceRequest, payload: &Payload) -> Framing {
    let headers = request.headers();
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let is_websocket =
        |value: &header::HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket");
    match payload {
        Payload::None => Framing::Length(0),
        _ if headers.contains_key(header::TRANSFER_ENCODING) => Framing::Chunked,
        _ if headers.get_all(header::UPGRADE).any(is_websocket) => Framing::ToEnd,
        _ => length.filter(|length| *length > 0).map_or(Framing::ToEnd, Framing::Length),
    }
}

/// What the connections of a worker have in common.
pub(crate) struct Terms {
    hub: Rc<Hub>,
    metrics: Metrics,
    /// How long nothing may move.
    patience: Duration,
    lingering: Arc<Semaphore>,
}

impl Terms {
    pub(crate) fn new(hub: Rc<Hub>, metrics: Metrics, patience: Duration) -> Self {
        Self { hub, metrics, patience, lingering: Arc::new(Semaphore::new(LINGERING)) }
    }
}

/// A connection that can be taken away from actix.
pub(crate) struct Io {
    socket: Option<TcpStream>,
    terms: Rc<Terms>,
    /// Ends no later than the patience.
    timer: Pin<Box<Sleep>>,
    /// Whether anything was read.
    spoken: bool,
    inflow: Inflow,
    slot: Slot,
    counted: Option<Counted>,
}

impl Io {
    pub(crate) fn new(socket: TcpStream, terms: Rc<Terms>, counted: Counted) -> Self {
        let slot = Slot(Rc::new(State {
            admission: RefCell::default(),
            moved: Cell::new(Instant::now()),
            begun: Cell::new(None),
            taken: Cell::new(0),
            is_answered: Cell::new(false),
            reader: Cell::new(None),
        }));
        Self {
            socket: Some(socket),
            timer: Box::pin(sleep(terms.patience)),
            terms,
            spoken: false,
            inflow: Inflow::default(),
            slot,
            counted: Some(counted),
        }
    }

    pub(crate) fn slot(&self) -> Slot {
        self.slot.clone()
    }

    fn socket(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.socket.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Notices that actix has begun a request.
    fn notice_request(&mut self) {
        if let Some(framing) = self.slot.0.begun.take() {
            self.inflow.begin(framing);
        }
    }

    /// Ready when nothing has moved for too long.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let until = self.slot.0.moved.get() + self.terms.patience;
            if until <= Instant::now() {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            self.timer.as_mut().reset(until);
        }
    }

    /// Takes the connection away from actix, and ends it with a problem document in place of what actix answers.
    fn end_with(&mut self, answer: &[u8]) {
        let Some(socket) = self.socket.take() else { return };
        let (status, answer) = own_answer(answer);
        self.terms.metrics.unreadable_requests.get_or_create(&Unreadable { status }).inc();
        let Ok(turn) = self.terms.lingering.clone().try_acquire_owned() else {
            // As much as the socket takes at once, which is all if its client has taken what came before.
            let _ = socket.try_write(answer.as_bytes());
            return;
        };
        let counted = self.counted.take();
        spawn(async move {
            let _until_it_is_closed = (counted, turn);
            // A client that is gone needs no answer.
            let _ = timeout(LINGER, finish(socket, answer)).await;
        });
    }
}

/// Writes the last answer of a connection, and reads on until the client has closed it.
async fn finish(mut socket: TcpStream, answer: String) -> io::Result<()> {
    socket.write_all(answer.as_bytes()).await?;
    socket.shutdown().await?;
    let mut scrap = [0; 4096];
    while socket.read(&mut scrap).await? > 0 {}
    Ok(())
}

/// The status of an answer that actix made by itself, and the answer that is sent in its place.
fn own_answer(answer: &[u8]) -> (u16, String) {
    let status = answer.split(|byte| *byte == b' ').nth(1);
    let status =
        status.and_then(|status| StatusCode::from_bytes(status).ok()).unwrap_or(StatusCode::BAD_REQUEST);
    let detail = match status {
        StatusCode::REQUEST_TIMEOUT => "the head of the request did not come in time",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            "the head of a request may have 128 KB and 96 header fields"
        }
        _ => "what was sent cannot be read as a request of HTTP/1.1",
    };
    let body = problem_text(status, detail, &[]);
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
        cache-control: no-store\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n",
        body.len()
    );
    (status.as_u16(), head + &body)
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.notice_request();
        let most = this.inflow.may_read(this.slot.0.taken.get()).min(buf.remaining());
        if most == 0 {
            this.slot.0.reader.set(Some(cx.waker().clone()));
            return this.poll_patience(cx).map(Err);
        }
        // A client that always has more of a body to send must not get around the timer.
        if this.inflow.is_in_a_request() && this.slot.0.moved.get() + this.terms.patience <= Instant::now() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let buffer = buf.initialize_unfilled_to(most);
        let mut n = this.inflow.unhold(buffer);
        if n == 0 {
            let mut part = ReadBuf::new(buffer);
            match this.socket()?.poll_read(cx, &mut part) {
                Poll::Ready(read) => read?,
                Poll::Pending => return this.poll_patience(cx).map(Err),
            }
            n = part.filled().len();
            this.spoken |= n > 0;
        }
        let ours = this.inflow.read(&buffer[..n]);
        buf.advance(ours);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if !self.spoken {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.notice_request();
        if !self.inflow.is_being_answered() {
            self.end_with(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        let written = self.socket()?.poll_write(cx, buf);
        if written.is_ready() {
            self.slot.0.moved.set(Instant::now());
            return written;
        }
        self.poll_patience(cx).map(Err)
    }

    /// Called when all that was to be written was: an answer too, if there is a whole one.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.socket.is_none() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.socket()?.poll_flush(cx))?;
        if self.slot.0.is_answered.take() {
            self.notice_request();
            self.inflow.end();
            // The dispatcher is to read again.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.socket.is_none() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.socket()?.poll_flush(cx))?;
        let admission = self.slot.0.admission.borrow_mut().take();
        let Some(admission) = admission else { return self.socket()?.poll_shutdown(cx) };
        if let Some(socket) = self.socket.take() {
            self.terms.hub.clone().admit(socket, admission);
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
