//! The waiting room.
//!
//! [`rig::Bench`] makes a room and asks Redis what it takes. [`joins`] measures joins a second. Then as many visitors join
//! as are to wait, and a fresh edge must tell the first exact position soon. At last many streams are open ([`reader`])
//! while nothing happens, and while every visitor moves up.

mod joins;
mod reader;
mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tutti_queue::rooms::Rooms;

use super::process::{cpu_seconds, rss};
use super::report::{median, rates, row, say};
use super::stage::{Running, SECRET, Stage};
use crate::token::sign;
use joins::IN_FLIGHT;
use reader::Reader;
use rig::{Bench, ROOM};

/// Measures the waiting room and prints the figures.
///
/// # Errors
/// If something does not start, or answers what it must not.
pub(super) async fn run(stage: &Stage) -> anyhow::Result<()> {
    let bench = Bench { stage, rooms: Rooms::new(stage.client.clone(), 10_000_000) };
    let _queue = stage.service("tutti-queue", 2, &[])?;
    let edge = stage.edge(4)?;
    let admin = sign(SECRET, "bench", "rooms:admin", Duration::from_secs(7200))?;
    let tokens = joins_a_second(&bench, &edge, &admin).await?;
    waiting(&bench, &edge, tokens.last().context("a token")?).await?;
    streams(&bench, &edge, &admin, &tokens).await
}

/// Measures joins a second. Returns the tokens of the visitors who joined over HTTP.
async fn joins_a_second(bench: &Bench<'_>, edge: &Running, admin: &str) -> anyhow::Result<Vec<String>> {
    say("joins a second, of one room:");
    let bare = bench.stage.median(async || bench.bare().await).await?;
    row("the script alone, by redis-benchmark, 16 in a pipeline", &format!("{bare:.0}"));
    let settings = json!({"maxActive": 1, "admitPerSecond": 1, "graceSeconds": 86400, "claimSeconds": 86400});
    bench.put(edge, admin, settings).await?;
    let ours = bench.stage.median(async || bench.joins(50_000).await).await?;
    row(
        &format!("the service's own call of it, {IN_FLIGHT} in flight"),
        &format!("{ours:.0}, {:.2} of the script alone (goal 0.5)", ours / bare),
    );
    let mut tokens = Vec::new();
    let http = bench.http_joins(edge, bench.stage.options.streams.max(1), &mut tokens).await?;
    row(
        "over HTTP and gRPC, with a token signed for each",
        &format!("{http:.0}, {:.2} of the script alone", http / bare),
    );
    Ok(tokens)
}

/// Measures what waiting visitors take in Redis and in an edge, and how soon a fresh edge tells an exact position.
async fn waiting(bench: &Bench<'_>, edge: &Running, token: &str) -> anyhow::Result<()> {
    say(&format!("{} people waiting:", bench.stage.options.waiting));
    fill(bench).await?;
    let of_redis = bench.redis_bytes().await?;
    let people = bench.people().await? as f64;
    for (what, bytes) in &of_redis {
        row(&format!("bytes of Redis for each: {what}"), &format!("{:.1}", *bytes as f64 / people));
    }
    let all: u64 = of_redis.values().sum();
    row("bytes of Redis for each, in all", &format!("{:.0} (goal 300)", all as f64 / people));
    let began = Instant::now();
    let fresh = bench.stage.edge(6)?;
    let before = rss(fresh.process.pid())?;
    let mut first = loop {
        match Reader::open(&fresh.url, token).await {
            Ok(reader) => break reader,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    };
    let told = first.until("queueUpdate").await?;
    let took = began.elapsed();
    let true_place = bench.place(edge, token).await?;
    ensure!(told == true_place, "a fresh edge told the place {told}, and it is {true_place}");
    row(
        "a fresh edge, from its start to the first exact place",
        &format!("{:.2} s (goal 2)", took.as_secs_f64()),
    );
    let after = rss(fresh.process.pid())?;
    row(
        "bytes of that edge for each, all that it took to follow the room",
        &format!("{:.2} (goal 2)", after.saturating_sub(before) as f64 / people),
    );
    Ok(())
}

/// Lets visitors join until as many wait as the options say, and waits until Kafka has all changes.
async fn fill(bench: &Bench<'_>) -> anyhow::Result<()> {
    while let Some(missing) =
        bench.stage.options.waiting.checked_sub(bench.people().await?).filter(|n| *n > 0)
    {
        bench.joins(missing.clamp(IN_FLIGHT as u64, 100_000)).await?;
        eprint!("\r{} wait ", bench.people().await?);
    }
    loop {
        let read = bench.rooms.read(ROOM, false).await?;
        let behind = read.seq.saturating_sub(read.state.relayed as u64);
        eprint!("\r{behind} changes on their way to Kafka   ");
        if behind < 200 {
            break;
        }
        sleep(Duration::from_millis(200)).await;
    }
    eprintln!();
    Ok(())
}

/// Measures many streams of the room on one edge: commands of Redis while all only wait, and CPU while each hears its
/// position once a second.
async fn streams(bench: &Bench<'_>, edge: &Running, admin: &str, tokens: &[String]) -> anyhow::Result<()> {
    say(&format!("{} streams of that room on one edge:", tokens.len()));
    let mut readers = JoinSet::new();
    let (heard, read) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    for token in tokens {
        let mut reader = Reader::open(&edge.url, token).await?;
        let (heard, read) = (heard.clone(), read.clone());
        readers.spawn(async move {
            let _ = reader.until("queueUpdate").await;
            heard.fetch_add(1, Ordering::Relaxed);
            reader.drain(&read).await;
        });
    }
    while heard.load(Ordering::Relaxed) < tokens.len() as u64 {
        sleep(Duration::from_millis(100)).await;
    }
    sleep(Duration::from_secs(5)).await;
    let counters = bench.stage.commands().await?;
    sleep(Duration::from_secs(20)).await;
    let more = bench.stage.commands().await?;
    row(
        "commands of Redis a second while all only wait, scripts' own among them",
        &rates(&counters, &more, 20.0),
    );
    let settings =
        json!({"maxActive": 1_000_000, "admitPerSecond": 5, "graceSeconds": 86400, "claimSeconds": 86400});
    bench.put(edge, admin, settings).await?;
    sleep(Duration::from_secs(3)).await;
    let mut shares = Vec::new();
    for _ in 0..bench.stage.options.rounds {
        let (cpu, at, bytes) =
            (cpu_seconds(edge.process.pid())?, Instant::now(), read.load(Ordering::Relaxed));
        sleep(Duration::from_secs(10)).await;
        let passed = at.elapsed().as_secs_f64();
        let bytes = (read.load(Ordering::Relaxed) - bytes) as f64 / passed / tokens.len() as f64;
        shares.push((cpu_seconds(edge.process.pid())? - cpu) / passed);
        ensure!(bytes > 50.0, "only {bytes:.0} bytes a second reach a stream");
    }
    row(
        "CPU of the edge that tells each its place once a second",
        &format!("{:.1} % of a core (goal 15)", 100.0 * median(shares)),
    );
    Ok(())
}
