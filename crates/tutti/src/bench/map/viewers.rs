//! Streams of the map, read by hand: full clients would cost more than the edge.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tutti_model::location;

use super::rig::{PATIENCE, fix};
use crate::bench::stage::Running;
use crate::bench::times::Times;

/// The number of streams that note when they heard of each fix.
pub(super) const SAMPLES: usize = 20;
/// The beginning of an event of fixes. The line feed stands only at its start, so a match that fails can begin again
/// only there.
const EVENT: &[u8] = b"\nevent: liveMapLocation";
/// Streams that come from one address. The more of its ports are taken, the longer the kernel looks for another.
const FROM_ONE: usize = 4000;
/// Streams that connect at the same time. The kernel's queue of connections is shorter than their number.
const COMING: usize = 500;

/// Returns an event of this many bytes, as an edge writes it.
pub(super) fn event(number: usize, length: usize) -> Vec<u8> {
    let fix = location::to_json(&fix(number, 0));
    let mut text = format!("e2\r\nevent: liveMapLocation\ndata: [{fix}]\nid: ");
    let id = "x".repeat(length.saturating_sub(text.len() + 4));
    text.push_str(&id);
    text.push_str("\n\n\r\n");
    text.into_bytes()
}

/// Returns the number of the sample that stream `n` of `count` is, if it is one.
pub(super) fn sample(n: usize, count: usize) -> Option<usize> {
    let step = (count / SAMPLES).max(1);
    n.is_multiple_of(step).then_some(n / step).filter(|sample| *sample < SAMPLES)
}

/// Opens streams from addresses of 127.0.x.0/24, where x is `source`. Returns when all have heard something. The
/// streams end when the returned tasks are dropped.
pub(super) async fn open(
    edge: &Running,
    count: usize,
    source: u8,
    times: &Arc<Times>,
) -> anyhow::Result<JoinSet<()>> {
    let address = address_of(edge)?;
    let wanted = times.live.load(Ordering::Relaxed) + count;
    let (mut streams, turns) = (JoinSet::new(), Arc::new(Semaphore::new(COMING)));
    for n in 0..count {
        let (times, turns) = (times.clone(), turns.clone());
        streams.spawn(async move {
            let turn = turns.acquire_owned().await;
            let socket = granted(address, [source, 1 + (n / FROM_ONE) as u8]).await;
            drop(turn);
            match socket {
                Ok(socket) => read(socket, times, sample(n, count)).await,
                Err(error) => eprintln!("a stream does not open: {error}"),
            }
        });
    }
    let until = Instant::now() + PATIENCE;
    while times.live.load(Ordering::Relaxed) < wanted {
        let missing = wanted - times.live.load(Ordering::Relaxed);
        ensure!(Instant::now() < until, "{missing} of {count} streams hear nothing");
        sleep(Duration::from_millis(10)).await;
    }
    Ok(streams)
}

/// Reads until the stream ends, and counts events. A sample also notes the time of each fix.
pub(super) async fn read(mut socket: TcpStream, times: Arc<Times>, sample: Option<usize>) {
    let (mut buffer, mut matched, mut held) = (vec![0; 4096], 0, String::new());
    let mut live = false;
    while let Ok(n @ 1..) = socket.read(&mut buffer).await {
        if !std::mem::replace(&mut live, true) {
            times.live.fetch_add(1, Ordering::Relaxed);
        }
        times.told.fetch_add(count(&buffer[..n], &mut matched), Ordering::Relaxed);
        if let Some(sample) = sample {
            held.push_str(&String::from_utf8_lossy(&buffer[..n]));
            note(&mut held, &times, sample);
        }
    }
}

/// Returns the number of events of fixes that begin in these bytes. `matched` carries from read to read how much of
/// the next one has matched.
fn count(bytes: &[u8], matched: &mut usize) -> usize {
    let mut events = 0;
    for byte in bytes {
        *matched = match *byte {
            byte if byte == EVENT[*matched] => *matched + 1,
            byte => usize::from(byte == EVENT[0]),
        };
        if *matched == EVENT.len() {
            (events, *matched) = (events + 1, 0);
        }
    }
    events
}

/// Notes the fixes of all events that are complete, and drops these events.
fn note(held: &mut String, times: &Times, sample: usize) {
    let Some(end) = held.rfind("\n\n") else { return };
    let now = times.now();
    let parts = held[..end].split(r#""n":""#).skip(1);
    for number in parts.filter_map(|part| part.get(..8)?.parse::<usize>().ok()) {
        if let Some(slot) = times.heard.get(number * SAMPLES + sample) {
            // Only the first time counts.
            let _ = slot.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
    held.drain(..end);
}

/// Returns the bytes a second of a stream, without its beginning.
pub(super) async fn bytes_a_second(
    edge: &Running,
    path: &str,
    coding: &str,
    lasts: Duration,
) -> anyhow::Result<f64> {
    let settles = Duration::from_secs(5);
    let mut socket = ask(address_of(edge)?, [0, 1], path, coding).await?;
    let (began, mut buffer, mut bytes) = (Instant::now(), vec![0; 65536], 0);
    while began.elapsed() < settles + lasts {
        if let Ok(read) = timeout(Duration::from_millis(100), socket.read(&mut buffer)).await {
            let n = read?;
            ensure!(n > 0, "the stream {path} ended");
            if began.elapsed() >= settles {
                bytes += n;
            }
        }
    }
    Ok(bytes as f64 / lasts.as_secs_f64())
}

fn address_of(edge: &Running) -> anyhow::Result<SocketAddr> {
    Ok(edge.url.strip_prefix("http://").context("an http:// URL")?.parse()?)
}

/// Opens a stream of the map that the edge has begun to answer with 200.
async fn granted(address: SocketAddr, source: [u8; 2]) -> anyhow::Result<TcpStream> {
    let socket = ask(address, source, "/v1/map/stream", "identity").await?;
    let mut head = [0; 64];
    let length = socket.peek(&mut head).await?;
    let head = String::from_utf8_lossy(&head[..length]);
    ensure!(head.starts_with("HTTP/1.1 200"), "{head:?}");
    Ok(socket)
}

async fn ask(
    address: SocketAddr,
    [third, last]: [u8; 2],
    path: &str,
    coding: &str,
) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, third, last), 0)))?;
    let mut socket = socket.connect(address).await?;
    socket.set_nodelay(true)?;
    // Browsers send this header. The edge sends Zstandard to no other client.
    let headers = format!("host: {address}\r\naccept-encoding: {coding}\r\nsec-fetch-mode: cors\r\n");
    let request = format!("GET {path} HTTP/1.1\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).await?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_wherever_they_are_cut() {
        let bytes =
            [event(7, 232), b"event: heartbeat\ndata: {\"at\":1}\n\n".to_vec(), event(8, 232)].concat();
        for cut in 0..bytes.len() {
            let mut matched = 0;
            let events = count(&bytes[..cut], &mut matched) + count(&bytes[cut..], &mut matched);
            assert_eq!(events, 2, "{cut}");
        }
        assert_eq!(event(7, 232).len(), 232);
    }

    #[test]
    fn samples_are_spread_and_numbered() {
        let samples: Vec<usize> = (0..1000).filter_map(|n| sample(n, 1000)).collect();
        assert_eq!(samples, (0..SAMPLES).collect::<Vec<_>>());
    }

    #[test]
    fn a_sample_notes_what_is_whole() {
        let times = Times::new(1000);
        let mut held = String::from_utf8([event(3, 232), event(4, 232)].concat()).unwrap();
        held.truncate(400);
        note(&mut held, &times, 5);
        assert!(times.heard[3 * SAMPLES + 5].load(Ordering::Relaxed) > 0);
        assert_eq!(times.heard[4 * SAMPLES + 5].load(Ordering::Relaxed), 0);
    }
}
