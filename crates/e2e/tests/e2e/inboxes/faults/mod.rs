//! Tests of inboxes while processes die, and while Kafka or Redis is away.

mod followers;
mod kafka_away;
mod kills;
mod redis_away;
mod slow_device;

use serde_json::{Value, json};
use tutti_e2e::eventually;
use tutti_e2e::inboxes::Device;
use tutti_load::now_ms;

fn to(user: &str, text: &str) -> Value {
    json!({ "to": { "users": [user] }, "body": text, "data": { "at": now_ms() } })
}

fn rotated(urls: &[String], by: usize) -> Vec<String> {
    let mut urls = urls.to_vec();
    let by = by % urls.len();
    urls.rotate_left(by);
    urls
}

async fn all_live(devices: &[Device]) {
    eventually("all devices are live", || async {
        devices
            .iter()
            .all(|device| device.look(|seen| !seen.connected.is_empty() && !seen.last_id.is_empty()))
    })
    .await;
}
