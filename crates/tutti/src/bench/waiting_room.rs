//! The waiting room.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use fred::prelude::*;
use fred::types::{ClusterHash, CustomCommand};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tutti_feed::{channel, head_key, log_key};
use tutti_model::names;
use tutti_queue::rooms::{Rooms, join_script};

use super::{Running, SECRET, Stage, cpu_seconds, median, rates, row, rss, say};
use crate::token::sign;

const ROOM: &str = "bench";
/// Joins in flight at the same time.
const IN_FLIGHT: usize = 128;

/// Measures it.
///
/// # Errors
/// If something does not start, or answers what it must not.
pub(super) async fn run(stage: &Stage) -> anyhow::Result<()> {
    Bench { stage, rooms: Rooms::new(stage.client.clone(), 10_000_000) }.run().await
}

struct Bench<'a> {
    stage: &'a Stage,
    rooms: Rooms,
}

impl Bench<'_> {
    async fn run(&self) -> anyhow::Result<()> {
        let queue = self.stage.service("tutti-queue", 2, &[])?;
        let edge = self.stage.edge(4)?;
        let admin = sign(SECRET, "bench", "rooms:admin", Duration::from_secs(7200))?;

        say("joins a second, of one room:");
        let bare = self.stage.median(async || self.bare().await).await?;
        row("the script alone, by redis-benchmark, 16 in a pipeline", &format!("{bare:.0}"));
        self.put(
            &edge,
            &admin,
            json!({"maxActive": 1, "admitPerSecond": 1, "graceSeconds": 86400, "claimSeconds": 86400}),
        )
        .await?;
        let ours = self.stage.median(async || self.joins(50_000).await).await?;
        row(
            &format!("the service's own call of it, {IN_FLIGHT} in flight"),
            &format!("{ours:.0}, {:.2} of the script alone (goal 0.5)", ours / bare),
        );
        let mut tokens = Vec::new();
        let http = self.http_joins(&edge, self.stage.options.streams.max(1), &mut tokens).await?;
        row(
            "over HTTP and gRPC, with a token signed for each",
            &format!("{http:.0}, {:.2} of the script alone", http / bare),
        );

        say(&format!("{} people waiting:", self.stage.options.waiting));
        self.fill().await?;
        let of_redis = self.redis_bytes().await?;
        let people = self.people().await? as f64;
        for (what, bytes) in &of_redis {
            row(&format!("bytes of Redis for each: {what}"), &format!("{:.1}", *bytes as f64 / people));
        }
        let all: u64 = of_redis.values().sum();
        row("bytes of Redis for each, in all", &format!("{:.0} (goal 300)", all as f64 / people));
        let began = Instant::now();
        let fresh = self.stage.edge(6)?;
        let before = rss(fresh.process.pid())?;
        let mut first = loop {
            match Reader::open(&fresh.url, tokens.last().context("a token")?).await {
                Ok(reader) => break reader,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let told = first.until("queueUpdate").await?;
        let took = began.elapsed();
        let true_place = self.place(&edge, tokens.last().context("a token")?).await?;
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
        drop((first, fresh));

        say(&format!("{} streams of that room on one edge:", tokens.len()));
        let mut readers = JoinSet::new();
        let (heard, read) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        for token in &tokens {
            let mut reader = Reader::open(&edge.url, token).await?;
            let (heard, read) = (heard.clone(), read.clone());
            readers.spawn(async move {
                let _ = reader.until("queueUpdate").await;
                heard.fetch_add(1, Ordering::Relaxed);
                reader.drain(&read).await;
            });
        }
        while heard.load(Ordering::Relaxed) < tokens.len() as u64 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        let counters = self.stage.commands().await?;
        tokio::time::sleep(Duration::from_secs(20)).await;
        let more = self.stage.commands().await?;
        row(
            "commands of Redis a second while all only wait, scripts' own among them",
            &rates(&counters, &more, 20.0),
        );
        self.put(&edge, &admin, json!({"maxActive": 1_000_000, "admitPerSecond": 5, "graceSeconds": 86400, "claimSeconds": 86400})).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let mut shares = Vec::new();
        for _ in 0..self.stage.options.rounds {
            let (cpu, at, bytes) =
                (cpu_seconds(edge.process.pid())?, Instant::now(), read.load(Ordering::Relaxed));
            tokio::time::sleep(Duration::from_secs(10)).await;
            let passed = at.elapsed().as_secs_f64();
            let bytes = (read.load(Ordering::Relaxed) - bytes) as f64 / passed / tokens.len() as f64;
            shares.push((cpu_seconds(edge.process.pid())? - cpu) / passed);
            ensure!(bytes > 50.0, "only {bytes:.0} bytes a second reach a stream");
        }
        row(
            "CPU of the edge that tells each its place once a second",
            &format!("{:.1} % of a core (goal 15)", 100.0 * median(shares)),
        );
        drop((readers, queue, edge));
        Ok(())
    }

    async fn put(&self, edge: &Running, admin: &str, settings: Json) -> anyhow::Result<()> {
        let url = format!("{}/v1/rooms/{ROOM}", edge.url);
        let answer = self.stage.http.put(url).bearer_auth(admin).body(settings.to_string()).send().await?;
        ensure!(answer.status().is_success(), "{}", answer.text().await?);
        Ok(())
    }

    /// The join script alone, in a room of its own, at the pace of one Redis.
    async fn bare(&self) -> anyhow::Result<f64> {
        let room = format!("bare{}", rand::random::<u32>());
        let settings = tutti_model::RoomSettings {
            max_active: 1,
            admit_per_second: 1.0,
            claim_seconds: 86_400,
            session_seconds: 86_400,
            pass_seconds: 60,
            grace_seconds: 86_400,
            ..Default::default()
        };
        self.rooms.put(&room, &settings, None, "", "").await?;
        let hash: String = self
            .stage
            .client
            .custom(
                CustomCommand::new_static("SCRIPT", ClusterHash::FirstKey, false),
                vec!["LOAD".to_owned(), join_script()],
            )
            .await?;
        let feed = names::room_feed(&room);
        let port = self.stage.options.port_base.to_string();
        let (log, head, channel) = (log_key(&feed), head_key(&feed), channel(&feed));
        let command = [
            "-p",
            &port,
            "-n",
            "100000",
            "-c",
            "4",
            "-P",
            "16",
            "-r",
            "1000000000",
            "-q",
            "--csv",
            "evalsha",
            &hash,
            "2",
            &log,
            &head,
            &channel,
            "1",
            "abcd__rand_int__",
            "__rand_int__",
            "1000000000",
        ]
        .map(str::to_owned);
        let output =
            tokio::task::spawn_blocking(move || Command::new("redis-benchmark").args(command).output())
                .await??;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().last().context("redis-benchmark says nothing")?;
        let rate = line.split(',').nth(1).and_then(|rate| rate.trim_matches('"').parse().ok());
        let _: () = self.stage.client.del(vec![log, head]).await?;
        rate.with_context(|| format!("redis-benchmark says {text}"))
    }

    /// So many joins as the service makes them; how many a second.
    async fn joins(&self, count: u64) -> anyhow::Result<f64> {
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let (rooms, count) = (self.rooms.clone(), count / IN_FLIGHT as u64);
            tasks.spawn(async move {
                for _ in 0..count {
                    rooms.join(ROOM, rand::random()).await?;
                }
                Ok::<_, tutti_queue::rooms::Error>(count)
            });
        }
        let mut joined = 0;
        while let Some(done) = tasks.join_next().await {
            joined += done??;
        }
        Ok(joined as f64 / began.elapsed().as_secs_f64())
    }

    async fn http_joins(
        &self,
        edge: &Running,
        count: usize,
        tokens: &mut Vec<String>,
    ) -> anyhow::Result<f64> {
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for task in 0..IN_FLIGHT {
            let (http, url) = (self.stage.http.clone(), format!("{}/v1/rooms/{ROOM}/tickets", edge.url));
            let count = count / IN_FLIGHT + usize::from(task < count % IN_FLIGHT);
            tasks.spawn(async move {
                let mut tokens = Vec::with_capacity(count);
                for _ in 0..count {
                    let key = uuid::Uuid::from_u128(rand::random()).to_string();
                    let answer = http.post(&url).header("idempotency-key", key).send().await?;
                    let body: Json = answer.error_for_status()?.json().await?;
                    tokens.push(body["token"].as_str().unwrap_or_default().to_owned());
                }
                Ok::<_, reqwest::Error>(tokens)
            });
        }
        while let Some(done) = tasks.join_next().await {
            tokens.extend(done??);
        }
        Ok(tokens.len() as f64 / began.elapsed().as_secs_f64())
    }

    async fn people(&self) -> anyhow::Result<u64> {
        Ok(self.rooms.read(ROOM, false).await?.state.waiting as u64)
    }

    /// Until so many wait, and Kafka has heard of all.
    async fn fill(&self) -> anyhow::Result<()> {
        while let Some(missing) =
            self.stage.options.waiting.checked_sub(self.people().await?).filter(|n| *n > 0)
        {
            self.joins(missing.clamp(IN_FLIGHT as u64, 100_000)).await?;
            eprint!("\r{} wait ", self.people().await?);
        }
        loop {
            let read = self.rooms.read(ROOM, false).await?;
            let behind = read.seq.saturating_sub(read.state.relayed as u64);
            eprint!("\r{behind} changes on their way to Kafka   ");
            if behind < 200 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        eprintln!();
        Ok(())
    }

    /// What the room takes in Redis, by kind of key.
    async fn redis_bytes(&self) -> anyhow::Result<BTreeMap<&'static str, u64>> {
        let base = channel(&names::room_feed(ROOM));
        let keys: Vec<String> = self
            .stage
            .client
            .custom(
                CustomCommand::new_static("KEYS", ClusterHash::FirstKey, false),
                vec![format!("{}*", base.replace(['{', '}'], "?"))],
            )
            .await?;
        let mut all = BTreeMap::new();
        for key in keys {
            let rest = key.strip_prefix(&base).unwrap_or_default();
            let kind = match rest.split(':').nth(1) {
                Some("tickets") => "tickets",
                Some("keys") => "idempotency keys",
                Some("log") => "log",
                Some("away") => "grace lists",
                _ => "bitmaps and head",
            };
            let usage = CustomCommand::new_static("MEMORY", ClusterHash::FirstKey, false);
            let bytes: u64 = self.stage.client.custom(usage, vec!["USAGE", &key, "SAMPLES", "0"]).await?;
            *all.entry(kind).or_default() += bytes;
        }
        Ok(all)
    }

    async fn place(&self, edge: &Running, token: &str) -> anyhow::Result<u64> {
        let claims = token.split('.').nth(1).context("a token")?;
        let claims = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims)?;
        let ticket = serde_json::from_slice::<Json>(&claims)?["ticket"].as_u64().context("a ticket")?;
        let url = format!("{}/v1/rooms/{ROOM}/tickets/{ticket}", edge.url);
        let body: Json = self.stage.http.get(url).bearer_auth(token).send().await?.json().await?;
        body["position"].as_u64().with_context(|| format!("no place: {body}"))
    }
}

/// One raw stream.
struct Reader {
    socket: TcpStream,
    text: String,
}

impl Reader {
    async fn open(url: &str, token: &str) -> anyhow::Result<Self> {
        let address = url.strip_prefix("http://").context("an http:// URL")?;
        let mut socket = TcpStream::connect(address).await?;
        let request = format!(
            "GET /v1/rooms/{ROOM}/stream HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await?;
        Ok(Self { socket, text: String::new() })
    }

    /// Reads up to the first such event; its position.
    async fn until(&mut self, event: &str) -> anyhow::Result<u64> {
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

    /// Reads on, and counts the bytes.
    async fn drain(&mut self, read: &AtomicU64) {
        self.text = String::new();
        let mut buffer = [0; 2048];
        while let Ok(n @ 1..) = self.socket.read(&mut buffer).await {
            read.fetch_add(n as u64, Ordering::Relaxed);
        }
    }
}
