//! The limits that the map and inboxes are compared with: the same work without any of Tutti, each part on a thread
//! of its own, whose CPU can be measured.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

/// Opens connections to this process. Returns the ends to write to, and those to read from.
pub(super) fn pairs(count: usize) -> anyhow::Result<(Vec<TcpStream>, Vec<tokio::net::TcpStream>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let (mut ours, mut theirs) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        let reads = TcpStream::connect(address)?;
        reads.set_nonblocking(true)?;
        theirs.push(tokio::net::TcpStream::from_std(reads)?);
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        ours.push(socket);
    }
    Ok((ours, theirs))
}

/// Opens connections to this process. Returns the ends to write to. What is written is read and thrown away.
pub(super) fn sockets(count: usize) -> anyhow::Result<Vec<TcpStream>> {
    let (ours, theirs) = pairs(count)?;
    for mut socket in theirs {
        tokio::spawn(async move {
            let mut scrap = [0; 2048];
            while let Ok(1..) = tokio::io::AsyncReadExt::read(&mut socket, &mut scrap).await {}
        });
    }
    Ok(ours)
}

/// Returns the CPU seconds that this thread has used.
fn own_cpu() -> anyhow::Result<f64> {
    super::process::cpu_of("/proc/thread-self/stat")
}

/// Writes the bytes of each round to all sockets, a round each `pause`. Returns the sockets and the CPU seconds of a
/// write.
pub(super) fn write_loop(
    mut sockets: Vec<TcpStream>,
    times: usize,
    pause: Duration,
    mut bytes: impl FnMut(usize) -> Vec<u8>,
) -> anyhow::Result<(Vec<TcpStream>, f64)> {
    let before = own_cpu()?;
    let mut next = Instant::now();
    for time in 0..times {
        let bytes = bytes(time);
        for socket in &mut sockets {
            socket.write_all(&bytes)?;
        }
        next += pause;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let each = (own_cpu()? - before) / (times * sockets.len()) as f64;
    Ok((sockets, each))
}

/// Runs a bare pair: one thread publishes `rate` messages a second, each for one of the sockets, and another
/// subscribes and writes each message to its socket. Returns the sockets, the CPU seconds of both threads, and the
/// number of messages.
pub(super) fn pair(
    port: u16,
    mut sockets: Vec<TcpStream>,
    bytes: &[u8],
    rate: u64,
    lasts: Duration,
) -> anyhow::Result<(Vec<TcpStream>, f64, u64)> {
    let mut heard = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    heard.set_nodelay(true)?;
    heard.write_all(&command(&[b"SUBSCRIBE", b"bench"]))?;
    let count = sockets.len();
    let wanted = (rate as f64 * lasts.as_secs_f64()) as u64;
    let subscriber = std::thread::spawn(move || -> anyhow::Result<(Vec<TcpStream>, f64)> {
        let before = own_cpu()?;
        let (mut held, mut buffer, mut written) = (Vec::new(), [0; 65536], 0);
        while written < wanted {
            let n = heard.read(&mut buffer)?;
            ensure!(n > 0, "Redis closed the connection");
            held.extend_from_slice(&buffer[..n]);
            let mut at = 0;
            while let Some((parts, next)) = reply(&held[at..]) {
                at += next;
                if let [kind, _, message] = parts[..]
                    && kind == b"message"
                {
                    let (who, message) = message.split_at(8);
                    let who: usize = std::str::from_utf8(who)?.trim().parse()?;
                    sockets[who].write_all(message)?;
                    written += 1;
                }
            }
            held.drain(..at);
        }
        Ok((sockets, own_cpu()? - before))
    });
    let mut publishes = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    publishes.set_nodelay(true)?;
    let before = own_cpu()?;
    let (began, mut sent, mut scrap) = (Instant::now(), 0u64, [0; 65536]);
    while sent < wanted {
        // Messages that are due go together, as in a batch of 5 ms.
        let due = ((began.elapsed().as_secs_f64() * rate as f64) as u64).min(wanted) - sent;
        let mut all = Vec::new();
        for _ in 0..due {
            let mut message = format!("{:>8}", sent as usize * 7919 % count).into_bytes();
            message.extend_from_slice(bytes);
            all.extend(command(&[b"PUBLISH", b"bench", &message]));
            sent += 1;
        }
        publishes.write_all(&all)?;
        let mut answers = 0;
        while answers < due {
            let n = publishes.read(&mut scrap)?;
            ensure!(n > 0, "Redis closed the connection");
            answers += scrap[..n].iter().filter(|byte| **byte == b'\n').count() as u64;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let publisher = own_cpu()? - before;
    let (sockets, subscriber) = subscriber.join().ok().context("the subscriber panicked")??;
    Ok((sockets, publisher + subscriber, wanted))
}

/// Encodes a Redis command.
fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut text = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        text.extend(format!("${}\r\n", word.len()).into_bytes());
        text.extend_from_slice(word);
        text.extend_from_slice(b"\r\n");
    }
    text
}

/// Reads the first array of strings and numbers. Returns it and where the next one begins, or `None` if it is not
/// complete.
fn reply(bytes: &[u8]) -> Option<(Vec<&[u8]>, usize)> {
    let mut at = 0;
    let line = |from: usize| {
        let end = from + bytes.get(from..)?.windows(2).position(|two| two == b"\r\n")?;
        Some((&bytes[from..end], end + 2))
    };
    let (head, next) = line(at)?;
    at = next;
    let parts: usize = std::str::from_utf8(head.strip_prefix(b"*")?).ok()?.parse().ok()?;
    let mut all = Vec::with_capacity(parts);
    for _ in 0..parts {
        let (head, next) = line(at)?;
        at = next;
        if let Some(length) = head.strip_prefix(b"$") {
            let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
            all.push(bytes.get(at..at + length)?);
            bytes.get(at + length..at + length + 2)?;
            at += length + 2;
        } else {
            all.push(head);
        }
    }
    Some((all, at))
}
