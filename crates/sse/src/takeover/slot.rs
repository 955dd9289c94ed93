//! What both sides of a connection know of its requests: the handlers that actix-web calls, and the [`Io`](super::io::Io)
//! that actix-web reads from and writes to.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use actix_web::HttpMessage as _;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::http::header;
use actix_web::middleware::Next;
use actix_web::web::Bytes;
use futures_util::Stream;
use tokio::time::Instant;

use crate::hub::Admission;
use crate::takeover::inflow::Framing;

/// What is known of a connection on both sides of actix: where a handler leaves what the hub needs to know of
/// a stream.
#[derive(Clone)]
pub struct Slot(Rc<State>);

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
    /// The slot of a connection that was accepted just now.
    pub(crate) fn new() -> Self {
        Self(Rc::new(State {
            admission: RefCell::default(),
            moved: Cell::new(Instant::now()),
            begun: Cell::new(None),
            taken: Cell::new(0),
            is_answered: Cell::new(false),
            reader: Cell::new(None),
        }))
    }

    /// Leaves the terms of a stream, which the hub takes over once its response head was written.
    pub fn put(&self, admission: Admission) {
        *self.0.admission.borrow_mut() = Some(admission);
    }

    /// Removes and returns the terms of a stream, if a handler has left any.
    pub(crate) fn take_admission(&self) -> Option<Admission> {
        self.0.admission.borrow_mut().take()
    }

    /// When the connection was accepted, the head of its last request was read, or the last bytes of a response were
    /// taken, whichever is latest.
    pub(crate) fn moved_at(&self) -> Instant {
        self.0.moved.get()
    }

    /// Notes that bytes of a response were taken.
    pub(crate) fn note_progress(&self) {
        self.0.moved.set(Instant::now());
    }

    /// Returns the framing of a request that has begun since this was last called.
    pub(crate) fn take_begun(&self) -> Option<Framing> {
        self.0.begun.take()
    }

    /// Returns how many bytes of the request's body its handler has taken; the maximum once it takes no more.
    pub(crate) fn body_taken(&self) -> u64 {
        self.0.taken.get()
    }

    /// Whether all of an answer has been handed to actix-web since this was last called.
    pub(crate) fn take_answered(&self) -> bool {
        self.0.is_answered.take()
    }

    /// Wakes `reader` when a request has begun, or more of its body may be handed on.
    pub(crate) fn wake_on_change(&self, reader: &Waker) {
        self.0.reader.set(Some(reader.clone()));
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
pub struct AnswerBody {
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
pub async fn in_turn<B: MessageBody + 'static>(
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
    let response = next.call(request).await?.map_into_boxed_body();
    Ok(response.map_body(|_, body| AnswerBody { body, _until_it_is_written: answering }))
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
