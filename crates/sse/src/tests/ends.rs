//! What a client of each coding and each version of HTTP has read when its stream ended as planned.

use std::io::Read as _;
use std::time::Duration;

use flate2::read::GzDecoder;

use super::{connection, read_all, stream};
use crate::coding::Coding;
use crate::events::Events;
use crate::socket::Socket;
use crate::stream::{CloseReason, WriteOutcome};

const TEXT: &str = "event: a\ndata: 1\n\n\
    event: b\ndata: 2\n\n\
    event: reconnect\ndata: {\"reason\":\"life\",\"retryMs\":700}\nretry: 700\n\n";

/// All bytes that a client reads of a stream with two events that ends as planned.
async fn body(chunked: bool, coding: Coding) -> Vec<u8> {
    let (server, client) = connection().await;
    let mut stream = stream(Socket::Client(server), chunked, coding);
    let mut bytes = stream.begin().to_vec();
    for (name, data) in [("a", "1"), ("b", "2")] {
        bytes.extend_from_slice(&stream.encode(&Events::default().event(name, data).frame()));
    }
    assert_eq!(stream.try_write(bytes.into()), WriteOutcome::Complete);
    assert_eq!(stream.close(Duration::from_millis(700)), CloseReason::Life);
    read_all(client).await
}

/// The body without the frames of its chunks, the last of which must be there.
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n").expect("a chunk has a length");
        let length = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        let (data, rest) = body[end + 2..].split_at(length);
        text.extend_from_slice(data);
        body = rest.strip_prefix(b"\r\n").expect("a chunk ends with a line feed");
        if length == 0 {
            assert!(body.is_empty(), "nothing follows the last chunk");
            return text;
        }
    }
}

#[actix_web::test]
async fn a_plain_body_ends_with_the_last_chunk() {
    let body = body(true, Coding::Identity).await;
    assert_eq!(String::from_utf8(unchunked(&body)).unwrap(), TEXT);
}

#[actix_web::test]
async fn a_client_of_http_1_0_gets_no_chunks() {
    let body = body(false, Coding::Identity).await;
    assert_eq!(String::from_utf8(body).unwrap(), TEXT);
}

#[actix_web::test]
async fn a_gzip_body_ends_with_the_checksum_of_all_that_was_sent() {
    for chunked in [true, false] {
        let body = body(chunked, Coding::Gzip).await;
        let body = if chunked { unchunked(&body) } else { body };
        let mut text = String::new();
        let mut decoder = GzDecoder::new(&body[..]);
        decoder.read_to_string(&mut text).expect("the checksum and the length are right");
        assert_eq!(text, TEXT);
        assert!(decoder.into_inner().is_empty(), "nothing follows the end of gzip");
    }
}

#[actix_web::test]
async fn a_zstd_body_ends_with_a_whole_frame() {
    for chunked in [true, false] {
        let body = body(chunked, Coding::Zstd).await;
        let body = if chunked { unchunked(&body) } else { body };
        let text = zstd::stream::decode_all(&body[..]).expect("each frame is whole");
        assert_eq!(String::from_utf8(text).unwrap(), TEXT);
    }
}
