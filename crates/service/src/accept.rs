//! Accepting connections of the admin and gRPC ports: a bounded number at a time, each of which must begin within a
//! time.

use std::future::Future as _;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// Pause after a connection that could not be accepted, for example for want of a file descriptor.
const PAUSE: Duration = Duration::from_millis(100);

/// A listener with a bounded number of open connections.
pub(crate) struct Acceptor {
    listener: TcpListener,
    free: Arc<Semaphore>,
    begin: Begin,
}

/// How many bytes a client must send, and within what time.
#[derive(Clone, Copy)]
pub(crate) struct Begin {
    pub(crate) bytes: usize,
    pub(crate) within: Duration,
}

/// An accepted connection. Reading from it fails once the client has not begun in time.
pub(crate) struct Connection {
    stream: TcpStream,
    missing_bytes: usize,
    deadline: Option<Pin<Box<Sleep>>>,
    _slot: OwnedSemaphorePermit,
}

impl Acceptor {
    /// Creates an acceptor of at most `most` connections at a time. Further ones wait in the backlog of the kernel.
    pub(crate) fn new(listener: TcpListener, most: usize, begin: Begin) -> Self {
        Self { listener, free: Arc::new(Semaphore::new(most)), begin }
    }

    /// Waits for the next connection. Skips connections that could not be accepted. Cancel safe.
    pub(crate) async fn accept(&self) -> Connection {
        let slot = self.free.clone().acquire_owned().await.expect("the semaphore is never closed");
        let stream = loop {
            match self.listener.accept().await {
                Ok((stream, _)) => break stream,
                Err(_) => sleep(PAUSE).await,
            }
        };
        // Without it an answer may wait for an acknowledgement. Nothing else depends on it, so an error does no harm.
        let _ = stream.set_nodelay(true);
        let deadline = (self.begin.bytes > 0).then(|| Box::pin(sleep(self.begin.within)));
        Connection { stream, missing_bytes: self.begin.bytes, deadline, _slot: slot }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(deadline) = &mut self.deadline {
            if read.is_pending() {
                ready!(deadline.as_mut().poll(context));
                return Poll::Ready(Err(ErrorKind::TimedOut.into()));
            }
            self.missing_bytes = self.missing_bytes.saturating_sub(buffer.filled().len() - before);
            if self.missing_bytes == 0 {
                self.deadline = None;
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
