//! Tests of streams over real socket pairs and pipes, without Kafka, Redis or HTTP.

mod ends;
mod times;
mod writes;

use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tutti_service::CancellationToken;

use crate::coding::Coding;
use crate::hub::{Hub, Timeouts};
use crate::metrics::Metrics;
use crate::socket::Socket;
use crate::stream::{CloseReason, Stream, WriteOutcome};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

/// A hub whose streams send no heartbeat, never stall and drain for an hour, unless `change` says otherwise.
fn hub(change: impl FnOnce(&mut Timeouts)) -> (Rc<Hub>, CancellationToken) {
    let mut timeouts = Timeouts { heartbeat: LONG, stall: LONG, drain: LONG };
    change(&mut timeouts);
    let draining = CancellationToken::new();
    (Hub::start(timeouts, Metrics::default(), draining.clone()), draining)
}

/// Both ends of a connection: the server's, and the client's.
async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (accepted, connected) = tokio::join!(listener.accept(), TcpStream::connect(address));
    (accepted.unwrap().0, connected.unwrap())
}

/// A stream of plain text without chunks.
fn plain(socket: Socket) -> Stream {
    stream(socket, false, Coding::Identity)
}

fn stream(socket: Socket, chunked: bool, coding: Coding) -> Stream {
    Stream::new(socket, chunked, coding, Instant::now() + LONG, CloseReason::Life, None)
}

/// Writes to a stream until its socket takes no more.
fn fill(stream: &mut Stream) {
    while stream.try_write(vec![b' '; 1 << 20].into()) == WriteOutcome::Complete {}
}

/// Reads from the client's end until what was read ends with `end`.
async fn read_to(client: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let read = client.read_buf(&mut text).await.unwrap();
        assert!(read > 0, "the connection ended after {:?}", String::from_utf8_lossy(&text));
    }
    String::from_utf8(text).unwrap()
}

/// Reads all that comes until the end of the connection.
async fn read_all(mut client: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.unwrap();
    bytes
}
