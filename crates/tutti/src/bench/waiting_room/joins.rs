//! Joins: how many a second, by the script alone, by the service, and over HTTP.

use std::process::Command;
use std::time::Instant;

use anyhow::Context as _;
use fred::prelude::*;
use fred::types::{ClusterHash, CustomCommand};
use serde_json::Value as Json;
use tokio::task::JoinSet;
use tutti_feed::{channel, head_key, log_key};
use tutti_model::names;
use tutti_queue::rooms::join_script;

use super::rig::{Bench, ROOM};
use crate::bench::stage::Running;

/// Joins in flight at the same time.
pub(super) const IN_FLIGHT: usize = 128;

impl Bench<'_> {
    /// Returns the joins a second of the join script alone, in a room of its own.
    pub(super) async fn bare(&self) -> anyhow::Result<f64> {
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

    /// Makes joins with the service's own call. Returns their number a second.
    pub(super) async fn joins(&self, count: u64) -> anyhow::Result<f64> {
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

    pub(super) async fn http_joins(
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
}
