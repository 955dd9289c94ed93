//! Writes that a socket takes a part of, and clients that send what nobody asked for.

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;

use super::{connection, fill, hub, plain, read_all};
use crate::events::Events;
use crate::pipe::pipe;
use crate::socket::Socket;
use crate::stream::WriteOutcome;

/// Takes what lies in the pipe; the pipe takes more then.
fn taken(reader: &crate::pipe::PipeReader) -> Vec<u8> {
    reader.try_take().unwrap_or_default()
}

#[test]
fn a_write_that_is_cut_at_any_byte_goes_on_at_the_next() {
    let text = Bytes::from_static(b"event: a\ndata: 1\n\nevent: b\ndata: 2\n\n");
    for room in 1..=text.len() {
        let (writer, reader) = pipe(room);
        let mut stream = plain(Socket::Part(writer));
        let mut read = Vec::new();
        let mut outcome = stream.try_write(text.clone());
        while let WriteOutcome::Partial(rest) = outcome {
            read.extend(taken(&reader));
            assert_eq!(rest, text[read.len()..], "what is left, in a pipe of {room}");
            outcome = stream.try_write(rest);
        }
        assert_eq!(outcome, WriteOutcome::Complete);
        read.extend(taken(&reader));
        assert_eq!(read, text);
    }
}

#[test]
fn bytes_of_one_client_before_shared_ones_are_cut_at_any_byte_too() {
    // The second is too long to be copied behind the first.
    for shared in [Bytes::from_static(b"event: a\ndata: 1\n\n"), Bytes::from(vec![b'x'; 9000])] {
        let own = b"id: 7\n";
        let whole = [own, &shared[..]].concat();
        for room in (1..40).chain([8191, 8192, 8999, whole.len() - 1]).filter(|room| *room < whole.len()) {
            let (writer, reader) = pipe(room);
            let mut stream = plain(Socket::Part(writer));
            let WriteOutcome::Partial(rest) = stream.try_write_after(&mut own.to_vec(), &shared) else {
                panic!("a pipe of {room} takes no more");
            };
            assert_eq!([&taken(&reader)[..], &rest].concat(), whole, "in a pipe of {room}");
        }
        let (writer, reader) = pipe(whole.len());
        let outcome = plain(Socket::Part(writer)).try_write_after(&mut own.to_vec(), &shared);
        assert_eq!((outcome, taken(&reader)), (WriteOutcome::Complete, whole));
    }
}

#[test]
fn a_write_to_a_client_that_is_gone_says_so() {
    let (writer, reader) = pipe(16);
    let mut stream = plain(Socket::Part(writer));
    drop(reader);
    assert_eq!(stream.try_write(Bytes::from_static(b"x")), WriteOutcome::Closed);
    assert_eq!(stream.try_write_after(&mut Vec::new(), &Bytes::from_static(b"x")), WriteOutcome::Closed);
}

#[actix_web::test]
async fn a_client_that_reads_again_gets_the_rest_and_then_the_next_event() {
    let (hub, _) = hub(|_| {});
    let (server, client) = connection().await;
    let mut stream = plain(Socket::Client(server));
    let long = Bytes::from(vec![b'x'; 8 << 20]);
    let WriteOutcome::Partial(rest) = stream.try_write(long.clone()) else { panic!("no socket takes 8 MB") };
    let reading = tokio::spawn(read_all(client));
    hub.write(&mut stream, rest).await.unwrap();
    let event = Events::default().event("a", "1").frame();
    let bytes = stream.encode(&event);
    hub.deliver_all(&mut stream, bytes).await.unwrap();
    drop(stream);
    let read = reading.await.unwrap();
    assert!(read == [&long[..], b"event: a\ndata: 1\n\n"].concat(), "{} bytes", read.len());
}

#[actix_web::test]
async fn of_a_client_that_floods_a_little_is_read_at_once() {
    const FLOOD: usize = 100_000;
    let (server, mut client) = connection().await;
    let stream = plain(Socket::Client(server));
    let mut sent = 0;
    while sent < FLOOD {
        sent += client.write(&vec![b'x'; FLOOD - sent]).await.unwrap();
    }
    client.shutdown().await.unwrap();
    stream.socket.readable_for_test().await;
    assert!(!stream.has_left(), "the end of what it sent lies behind the flood");
    let mut rest = Vec::new();
    let Socket::Client(mut server) = stream.socket else { unreachable!("it is a client's") };
    server.read_to_end(&mut rest).await.unwrap();
    assert!(rest.len() >= FLOOD - 16 * 512, "{} of {FLOOD} bytes are left", rest.len());
}

#[actix_web::test]
async fn a_client_that_closes_is_noticed_whether_its_socket_is_full_or_not() {
    let (server, client) = connection().await;
    let mut stream = plain(Socket::Client(server));
    assert!(!stream.has_left());
    fill(&mut stream);
    assert!(!stream.has_left());
    drop(client);
    stream.socket.readable_for_test().await;
    assert!(stream.has_left());
}
