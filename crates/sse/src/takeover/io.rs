//! A connection as actix-web sees it, which can be taken away from actix-web.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::hub::Hub;
use crate::limits::Permit;
use crate::metrics::Unreadable;
use crate::takeover::inflow::Inflow;
use crate::takeover::slot::Slot;

/// For how long what a client still sends is read on, behind an answer that ends its connection: a reset could take
/// the answer away. As long as `actix_web::HttpServer` has it.
pub const LINGER: Duration = Duration::from_secs(1);

/// Connections of a worker that are read on so after an answer of actix's own; others end at once.
pub const LINGERING: usize = 64;

/// What the connections of one worker have in common.
pub struct Terms {
    hub: Rc<Hub>,
    /// The time for which nothing may move within a request or an answer.
    idle_timeout: Duration,
    /// Writes the response, head and body, to bytes that cannot be read as a request, by its status.
    answer: fn(StatusCode) -> String,
    lingering: Arc<Semaphore>,
}

impl Terms {
    /// Terms under which a connection may rest for `idle_timeout` within a request or an answer. `answer` writes the whole
    /// response to bytes that cannot be read as a request.
    pub fn new(hub: Rc<Hub>, idle_timeout: Duration, answer: fn(StatusCode) -> String) -> Self {
        Self { hub, idle_timeout, answer, lingering: Arc::new(Semaphore::new(LINGERING)) }
    }
}

/// A connection that can be taken away from actix.
pub struct Io {
    socket: Option<TcpStream>,
    terms: Rc<Terms>,
    /// Fires when nothing has moved for too long, or earlier.
    timer: Pin<Box<Sleep>>,
    /// Whether the client has sent anything.
    spoken: bool,
    inflow: Inflow,
    slot: Slot,
    permit: Option<Permit>,
}

impl Io {
    /// A connection that was accepted just now; `permit` counts it until it ends or becomes a stream.
    pub fn new(socket: TcpStream, terms: Rc<Terms>, permit: Permit) -> Self {
        let slot = Slot::new();
        Self {
            socket: Some(socket),
            timer: Box::pin(sleep(terms.idle_timeout)),
            terms,
            spoken: false,
            inflow: Inflow::default(),
            slot,
            permit: Some(permit),
        }
    }

    /// Returns what handlers know of the connection.
    pub fn slot(&self) -> Slot {
        self.slot.clone()
    }

    fn socket(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.socket.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Notices that actix has begun a request.
    fn notice_request(&mut self) {
        if let Some(framing) = self.slot.take_begun() {
            self.inflow.begin(framing);
        }
    }

    /// Becomes ready when nothing has moved for too long.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let until = self.slot.moved_at() + self.terms.idle_timeout;
            if until <= Instant::now() {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            self.timer.as_mut().reset(until);
        }
    }

    /// Takes the connection away from actix, and ends it with a problem document in place of what actix answers.
    fn end_with(&mut self, answer: &[u8]) {
        let Some(socket) = self.socket.take() else { return };
        let status = status_of(answer);
        let answer = (self.terms.answer)(status);
        let unreadable = Unreadable { status: status.as_u16() };
        self.terms.hub.metrics().unreadable_requests.get_or_create(&unreadable).inc();
        let Ok(turn) = self.terms.lingering.clone().try_acquire_owned() else {
            // As much as the socket takes at once, which is all if its client has taken what came before.
            let _ = socket.try_write(answer.as_bytes());
            return;
        };
        let permit = self.permit.take();
        spawn_local(async move {
            let _until_it_is_closed = (permit, turn);
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

/// The status of an answer that actix made by itself.
fn status_of(answer: &[u8]) -> StatusCode {
    let status = answer.split(|byte| *byte == b' ').nth(1);
    status.and_then(|status| StatusCode::from_bytes(status).ok()).unwrap_or(StatusCode::BAD_REQUEST)
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.notice_request();
        let most = this.inflow.may_read(this.slot.body_taken()).min(buf.remaining());
        if most == 0 {
            this.slot.wake_on_change(cx.waker());
            return this.poll_patience(cx).map(Err);
        }
        // A client that always has more of a body to send must not get around the timer.
        if this.inflow.is_in_a_request() && this.slot.moved_at() + this.terms.idle_timeout <= Instant::now() {
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
            self.slot.note_progress();
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
        if self.slot.take_answered() {
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
        let admission = self.slot.take_admission();
        let Some(admission) = admission else { return self.socket()?.poll_shutdown(cx) };
        if let Some(socket) = self.socket.take() {
            self.terms.hub.admit(socket, admission);
        }
        Poll::Ready(Ok(()))
    }
}
