//! Bytes from one task of a worker to another, in its memory: what a socket pair would be, without its two files.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};

struct Shared {
    bytes: Vec<u8>,
    /// The most bytes that are held for a reader that is slow.
    most: usize,
    /// One of the ends is gone.
    is_closed: bool,
    /// Wakes the other end, if it waits.
    waiting: Option<Waker>,
}

impl Shared {
    fn wake(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    fn close(&mut self) {
        self.is_closed = true;
        self.wake();
    }
}

/// The end that is written to.
pub struct PipeWriter(Rc<RefCell<Shared>>);

/// The end that is read from.
pub struct PipeReader(Rc<RefCell<Shared>>);

/// Makes a pipe that holds `most` bytes for a reader that is slow.
pub fn pipe(most: usize) -> (PipeWriter, PipeReader) {
    let shared = Shared { bytes: Vec::new(), most, is_closed: false, waiting: None };
    let shared = Rc::new(RefCell::new(shared));
    (PipeWriter(shared.clone()), PipeReader(shared))
}

impl PipeWriter {
    /// Writes as much as is taken without waiting.
    ///
    /// # Errors
    /// `WouldBlock` while nothing is taken, `BrokenPipe` once nobody reads any more.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut shared = self.0.borrow_mut();
        if shared.is_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let n = bytes.len().min(shared.most.saturating_sub(shared.bytes.len()));
        if n == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        shared.bytes.extend_from_slice(&bytes[..n]);
        shared.wake();
        Ok(n)
    }

    /// Returns whether nobody reads any more.
    pub fn is_closed(&self) -> bool {
        self.0.borrow().is_closed
    }

    /// Waits until the pipe takes more bytes, or nobody reads any more.
    pub async fn writable(&self) {
        poll_fn(|cx| {
            let mut shared = self.0.borrow_mut();
            if shared.is_closed || shared.bytes.len() < shared.most {
                return Poll::Ready(());
            }
            shared.waiting = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl PipeReader {
    /// Takes all bytes that were written. Returns `None` while there are none, and no bytes once the writer is gone.
    pub fn try_take(&self) -> Option<Vec<u8>> {
        let mut shared = self.0.borrow_mut();
        if shared.bytes.is_empty() && !shared.is_closed {
            return None;
        }
        shared.wake();
        Some(std::mem::take(&mut shared.bytes))
    }

    /// Waits until there are bytes, or the writer is gone.
    pub async fn readable(&self) {
        poll_fn(|cx| {
            let mut shared = self.0.borrow_mut();
            if shared.is_closed || !shared.bytes.is_empty() {
                return Poll::Ready(());
            }
            shared.waiting = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        self.0.borrow_mut().close();
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        self.0.borrow_mut().close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_that_was_written_arrives_and_then_the_end() {
        let (writer, reader) = pipe(16);
        let sent: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        let writing = async {
            let mut rest = &sent[..];
            while !rest.is_empty() {
                match writer.try_write(rest) {
                    Ok(n) => rest = &rest[n..],
                    Err(_) => writer.writable().await,
                }
            }
            drop(writer);
        };
        let reading = async {
            let mut all = Vec::new();
            loop {
                reader.readable().await;
                match reader.try_take() {
                    Some(bytes) if bytes.is_empty() => return all,
                    bytes => all.extend(bytes.expect("it said that there is something")),
                }
            }
        };
        let ((), all) = tokio::join!(writing, reading);
        assert_eq!(all, sent);
    }

    #[tokio::test]
    async fn it_holds_so_much_and_its_writer_is_told_that_nobody_reads() {
        let (writer, reader) = pipe(16);
        assert_eq!(writer.try_write(&[0; 20]).unwrap(), 16);
        assert_eq!(writer.try_write(b"x").unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let (left, ()) = tokio::join!(writer.writable(), async { drop(reader) });
        assert_eq!((left, writer.is_closed()), ((), true));
        assert_eq!(writer.try_write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
