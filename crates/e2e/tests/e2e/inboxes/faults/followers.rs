//! A topic that very many devices follow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tutti_e2e::eventually;
use tutti_e2e::inboxes::{Inboxes, token};
use tutti_e2e::kafka;
use tutti_e2e::service::Service;
use tutti_e2e::testbed::UNLIMITED;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_followers_of_a_topic_get_each_notification_once_from_one_encoding() {
    tutti_service::raise_file_limit();
    let inboxes = Inboxes::start(kafka::shared(), 1).await;
    let ingest: Service = inboxes.ingest();
    let edges = [inboxes.edge(&UNLIMITED).await, inboxes.edge(&UNLIMITED).await];
    ingest.wait_ready().await;
    let heard = Arc::new(AtomicUsize::new(0));
    let live = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..10_000 {
        let address = edges[n % 2].url.strip_prefix("http://").unwrap().to_owned();
        let (heard, live) = (heard.clone(), live.clone());
        let token = token(&format!("u-{n}"));
        tasks.spawn(async move {
            let mut socket = loop {
                match TcpStream::connect(&address).await {
                    Ok(socket) => break socket,
                    Err(_) => sleep(Duration::from_millis(100)).await,
                }
            };
            let request = format!(
                "GET /v1/inbox/stream?topics=news HTTP/1.0\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n"
            );
            socket.write_all(request.as_bytes()).await.unwrap();
            let (mut text, mut bytes, mut greeted) = (String::new(), [0; 1024], false);
            let mut count = 0;
            loop {
                let n = socket.read(&mut bytes).await.unwrap_or(0);
                assert!(n > 0, "the stream ended");
                text.push_str(&String::from_utf8_lossy(&bytes[..n]));
                if !greeted && text.contains("event: connected") && text.contains("\nid: u.") {
                    greeted = true;
                    live.fetch_add(1, Ordering::Relaxed);
                }
                let now = text.matches("event: notification").count();
                assert!(now <= 3, "once each: {text}");
                heard.fetch_add(now - count, Ordering::Relaxed);
                count = now;
            }
        });
    }
    eventually("all are live", || async { live.load(Ordering::Relaxed) == 10_000 }).await;
    eventually("and wait for nothing", || async {
        edges[0].service.metric("tutti_edge_streams_behind").await == 0.0
            && edges[1].service.metric("tutti_edge_streams_behind").await == 0.0
    })
    .await;
    for n in 0..3 {
        let body = json!({ "to": { "topic": "news" }, "title": format!("news {n}") });
        let url = std::slice::from_ref(&edges[n % 2].url);
        inboxes.send_until_accepted(url, &format!("k-{n}"), &body).await;
    }
    eventually("all have heard all", || async { heard.load(Ordering::Relaxed) == 30_000 }).await;
    assert!(tasks.try_join_next().is_none(), "none has ended or heard one twice");
    for edge in &edges {
        assert_eq!(edge.service.metric("tutti_edge_letters_encoded_total").await, 3.0, "once for all");
    }
}
