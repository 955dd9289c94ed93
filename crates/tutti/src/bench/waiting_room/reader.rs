//! One stream of the room, read by hand: a full client would cost more than the edge.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, ensure};
use serde_json::Value as Json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::rig::ROOM;

/// A stream of the room.
pub(super) struct Reader {
    socket: TcpStream,
    text: String,
}

impl Reader {
    pub(super) async fn open(url: &str, token: &str) -> anyhow::Result<Self> {
        let address = url.strip_prefix("http://").context("an http:// URL")?;
        let mut socket = TcpStream::connect(address).await?;
        let request = format!(
            "GET /v1/rooms/{ROOM}/stream HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await?;
        Ok(Self { socket, text: String::new() })
    }

    /// Reads up to the first event of this name. Returns its position.
    pub(super) async fn until(&mut self, event: &str) -> anyhow::Result<u64> {
        let mut buffer = [0; 2048];
        loop {
            let n = self.socket.read(&mut buffer).await?;
            ensure!(n > 0, "the stream ended: {}", self.text);
            self.text.push_str(&String::from_utf8_lossy(&buffer[..n]));
            if let Some(at) = self.text.find(&format!("event: {event}\ndata: "))
                && let Some(end) = self.text[at..].find("\n\n")
            {
                let data = self.text[at..at + end].lines().find_map(|line| line.strip_prefix("data: "));
                let data: Json = serde_json::from_str(data.context("an event without data")?)?;
                return data["position"].as_u64().context("no position");
            }
        }
    }

    /// Reads until the stream ends, and counts the bytes.
    pub(super) async fn drain(&mut self, read: &AtomicU64) {
        self.text = String::new();
        let mut buffer = [0; 2048];
        while let Ok(n @ 1..) = self.socket.read(&mut buffer).await {
            read.fetch_add(n as u64, Ordering::Relaxed);
        }
    }
}
