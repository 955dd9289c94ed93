//! Requests of the sender and of devices.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::StatusCode;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::run::{Run, TOPIC, lock, name_of};
use crate::retry::until_answered;

/// The time within which a device marks a notification as read.
const READ_WITHIN: Duration = Duration::from_secs(2);

impl Run {
    /// Sends a notification, and tries again with the same key until there is an answer.
    pub(super) async fn send(self: Arc<Self>, number: u32, to: Option<u32>) -> anyhow::Result<()> {
        let recipients = match to {
            Some(user) => json!({ "users": [name_of(user)] }),
            None => json!({ "topic": TOPIC }),
        };
        let body = json!({
            "to": recipients,
            "category": "sim",
            "title": format!("Number {number}"),
            "data": { "run": self.name, "number": number },
        })
        .to_string();
        let key = format!("{}-{number}", self.name);
        let token = self.token("sim", "notifications:send")?;
        let request = |edge: &str| {
            let post = self.client.post(format!("{edge}/v1/notifications"));
            post.bearer_auth(&token).header("idempotency-key", &key).body(body.clone())
        };
        let good = [StatusCode::ACCEPTED];
        let answer = until_answered(&self.inboxes.edges, &self.figures.again, request, &good).await?;
        let now = Instant::now();
        let id = answer["id"].as_str().context("a send without an id")?;
        let mut sent = lock(&self.sent);
        let sent = &mut sent[number as usize];
        sent.is_called(id)?;
        sent.answered = Some(now);
        self.figures.sent.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Marks a notification as read within [`READ_WITHIN`]. It may be deleted by then.
    pub(super) async fn mark(self: Arc<Self>, user: u32, id: String) -> anyhow::Result<()> {
        sleep(READ_WITHIN.mul_f64(rand::random())).await;
        let token = self.token(&name_of(user), "")?;
        let request = |edge: &str| self.client.post(format!("{edge}/v1/inbox/{id}/read")).bearer_auth(&token);
        let good = [StatusCode::OK, StatusCode::NOT_FOUND];
        until_answered(&self.inboxes.edges, &self.figures.again, request, &good).await?;
        self.figures.marked.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
