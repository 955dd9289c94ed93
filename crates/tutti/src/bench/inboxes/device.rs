//! The stream of one device.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::bench::times::Times;

/// The stream of one device, read by hand: a full client would cost more than the edge.
pub(super) struct Device {
    socket: TcpStream,
    last_id: String,
}

impl Device {
    pub(super) async fn open(url: &str, token: &str, last_id: &str) -> anyhow::Result<Self> {
        let address = url.strip_prefix("http://").context("an http:// URL")?;
        let mut socket = loop {
            match TcpStream::connect(address).await {
                Ok(socket) => break socket,
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        };
        socket.set_nodelay(true)?;
        let last = if last_id.is_empty() { String::new() } else { format!("last-event-id: {last_id}\r\n") };
        let request = format!(
            "GET /v1/inbox/stream?topics=bench HTTP/1.0\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n{last}\r\n"
        );
        socket.write_all(request.as_bytes()).await?;
        Ok(Self { socket, last_id: String::new() })
    }

    /// Reads until the stream ends. Returns its last id.
    pub(super) async fn read(mut self, times: &Times) -> String {
        let (mut held, mut buffer, mut greeted) = (String::new(), [0; 4096], false);
        while let Ok(n @ 1..) = self.socket.read(&mut buffer).await {
            held.push_str(&String::from_utf8_lossy(&buffer[..n]));
            let Some(end) = held.rfind("\n\n") else { continue };
            for line in held[..end].lines() {
                if let Some(id) = line.strip_prefix("id: ") {
                    id.clone_into(&mut self.last_id);
                    if !std::mem::replace(&mut greeted, true) {
                        times.live.fetch_add(1, Ordering::Relaxed);
                    }
                } else if let Some(at) = line.find(r#""id":"n-"#) {
                    let number = line[at + 8..].split('"').next().and_then(|n| n.parse::<usize>().ok());
                    if let Some(slot) = number.and_then(|n| times.heard.get(n)) {
                        slot.store(times.now(), Ordering::Relaxed);
                    }
                    times.told.fetch_add(1, Ordering::Relaxed);
                }
            }
            held.drain(..end);
        }
        self.last_id
    }
}
