//! The room that is measured.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use fred::prelude::*;
use fred::types::{ClusterHash, CustomCommand};
use serde_json::Value as Json;
use tutti_feed::channel;
use tutti_model::names;
use tutti_queue::rooms::Rooms;

use crate::bench::stage::{Running, Stage};

/// The name of the room.
pub(super) const ROOM: &str = "bench";

pub(super) struct Bench<'a> {
    pub(super) stage: &'a Stage,
    pub(super) rooms: Rooms,
}

impl Bench<'_> {
    pub(super) async fn put(&self, edge: &Running, admin: &str, settings: Json) -> anyhow::Result<()> {
        let url = format!("{}/v1/rooms/{ROOM}", edge.url);
        let answer = self.stage.http.put(url).bearer_auth(admin).body(settings.to_string()).send().await?;
        ensure!(answer.status().is_success(), "{}", answer.text().await?);
        Ok(())
    }

    pub(super) async fn people(&self) -> anyhow::Result<u64> {
        Ok(self.rooms.read(ROOM, false).await?.state.waiting as u64)
    }

    /// Returns the bytes of the room in Redis, by kind of key.
    pub(super) async fn redis_bytes(&self) -> anyhow::Result<BTreeMap<&'static str, u64>> {
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

    pub(super) async fn place(&self, edge: &Running, token: &str) -> anyhow::Result<u64> {
        let claims = token.split('.').nth(1).context("a token")?;
        let claims = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims)?;
        let ticket = serde_json::from_slice::<Json>(&claims)?["ticket"].as_u64().context("a ticket")?;
        let url = format!("{}/v1/rooms/{ROOM}/tickets/{ticket}", edge.url);
        let body: Json = self.stage.http.get(url).bearer_auth(token).send().await?.json().await?;
        body["position"].as_u64().with_context(|| format!("no place: {body}"))
    }
}
