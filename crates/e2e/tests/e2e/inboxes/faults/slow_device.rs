//! A device that reads nothing for a long time.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::iter;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tutti_e2e::eventually;
use tutti_e2e::inboxes::{Device, Inboxes, token};
use tutti_e2e::kafka;
use tutti_e2e::testbed::Edge;

use super::all_live;

/// A device that reads only when the test says so.
struct Slow {
    socket: TcpStream,
    text: String,
}

impl Slow {
    async fn open(edge: &Edge, user: &str) -> Self {
        let address = edge.url.strip_prefix("http://").unwrap();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        // With a small window the buffer of the server fills soon.
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address.parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut socket = TcpStream::from_std(socket.into()).unwrap();
        let request = format!(
            "GET /v1/inbox/stream HTTP/1.0\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\r\n",
            token(user)
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut slow = Self { socket, text: String::new() };
        slow.read_until("event: connected").await;
        slow.read_until("\nid: ").await;
        slow
    }

    async fn read_until(&mut self, word: &str) {
        let mut bytes = [0; 4096];
        while !self.text.contains(word) {
            let n = self.socket.read(&mut bytes).await.unwrap();
            assert!(n > 0, "the stream ended");
            self.text.push_str(&String::from_utf8_lossy(&bytes[..n]));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_reads_nothing_for_long_misses_nothing_that_is_kept_and_holds_up_nobody() {
    let inboxes = Inboxes::start(kafka::shared(), 1).await;
    let ingest = inboxes.ingest();
    let edge = inboxes.edge(&[("http.workers", "1")]).await;
    ingest.wait_ready().await;
    let urls = [edge.url.clone()];
    let other = Device::new(&urls, "7", "");
    all_live(std::slice::from_ref(&other)).await;
    let mut slow = Slow::open(&edge, "7").await;
    // The notifications are more than kernels buffer. Each has 2 KB, so that their count is what limits the mailbox.
    let filler = "x".repeat(1000);
    let calls: Vec<usize> = (0..700).collect();
    for part in calls.chunks(20) {
        let sending = part.iter().map(async |n| {
            let body = json!({ "to": { "users": ["7"] }, "title": format!("t-{n}-t"), "body": filler });
            inboxes.send_until_accepted(&urls, &format!("k-{n}"), &body).await
        });
        iter(sending).buffer_unordered(20).collect::<Vec<_>>().await;
        let sent = part[part.len() - 1] + 1;
        eventually("the other has all", || async { other.look(|seen| seen.ids.len() == sent) }).await;
    }
    other.look(|seen| assert_eq!((seen.twice.len(), seen.resets.len()), (0, 0)));
    eventually("the slow one has fallen behind", || async {
        edge.service.metric("tutti_edge_fell_behind_total").await >= 1.0
    })
    .await;
    let last = other.look(|seen| seen.data[&seen.ids[699]]["title"].as_str().unwrap().to_owned());
    tokio::time::timeout(Duration::from_secs(60), slow.read_until(&last)).await.expect("it is told the rest");
    let told = slow.text.as_str();
    let kept = inboxes.kept("user:7").await;
    assert!(
        kept.len() == 200 && told.contains("event: reset\ndata: {\"reason\":\"too_old\"}"),
        "{}",
        kept.len()
    );
    let after = &told[told.rfind("event: reset").unwrap()..];
    let mut from = 0;
    for id in &kept {
        let at = after[from..].find(&format!("\"id\":\"{id}\"")).expect("all that is kept, in order");
        from += at;
        assert_eq!(after.matches(&format!("\"id\":\"{id}\"")).count(), 1, "once");
    }
}
