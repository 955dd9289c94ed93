//! Where the bytes of a stream go. Every read and write of a stream passes here, and so does every wait for a socket:
//! this file alone decides how a worker learns that a socket is ready.

use std::io::ErrorKind;

use socket2::SockRef;
use tokio::net::TcpStream;

use crate::pipe::PipeWriter;

/// The destination of a stream.
pub enum Socket {
    /// The connection of a client.
    Client(TcpStream),
    /// The pipe of a part of a combined stream. The task that joins the parts reads its other end.
    Part(PipeWriter),
}

impl Socket {
    /// Writes as many bytes as are taken without waiting. Returns their number.
    ///
    /// # Errors
    /// `WouldBlock` if none are taken.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            // Directly, for the runtime would first check whether it believes that the socket is writable.
            Self::Client(socket) => match SockRef::from(socket).send(bytes) {
                // The runtime has to learn that the socket is full, or a later wait for it would not wait.
                Err(e) if e.kind() == ErrorKind::WouldBlock => socket.try_write(bytes),
                sent => sent,
            },
            Self::Part(pipe) => pipe.try_write(bytes),
        }
    }

    /// Reads what the client has sent, as far as there is any. Returns 0 when the client has closed its side.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing to read.
    pub(crate) fn try_read(&self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Client(socket) => socket.try_read(bytes),
            Self::Part(pipe) if pipe.is_closed() => Ok(0),
            Self::Part(_) => Err(ErrorKind::WouldBlock.into()),
        }
    }

    /// Waits until the socket takes more bytes.
    ///
    /// # Errors
    /// If the runtime cannot watch the socket.
    pub(crate) async fn writable(&self) -> std::io::Result<()> {
        match self {
            Self::Client(socket) => socket.writable().await,
            Self::Part(pipe) => {
                pipe.writable().await;
                Ok(())
            }
        }
    }

    /// Waits until there is something to read, or the client has closed its side.
    #[cfg(test)]
    pub(crate) async fn readable_for_test(&self) {
        if let Self::Client(socket) = self {
            socket.readable().await.expect("the runtime watches the socket");
        }
    }
}
