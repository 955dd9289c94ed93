//! Tests of notifications to users' devices.

mod access;
mod delivery;
mod faults;
mod presence;
mod resume;
mod sending;
mod topics;

use serde_json::Value;
use tutti_e2e::inboxes::{Device, Inboxes};
use tutti_e2e::service::Service;
use tutti_e2e::testbed::Edge;
use tutti_e2e::{eventually, kafka};

/// Starts one replica, an ingest and edges.
async fn up<const EDGES: usize>() -> (Inboxes, Service, [Edge; EDGES]) {
    let inboxes = Inboxes::start(kafka::shared(), 1).await;
    let ingest = inboxes.ingest();
    let edges: [Edge; EDGES] =
        std::array::from_fn(|_| inboxes.new_edge(&[("streams.heartbeat_seconds", "1")]));
    ingest.wait_ready().await;
    for edge in &edges {
        edge.service.wait_ready().await;
    }
    (inboxes, ingest, edges)
}

fn urls(edges: &[Edge]) -> Vec<String> {
    edges.iter().map(|edge| edge.url.clone()).collect()
}

/// Waits until the device receives new notifications.
async fn is_live(device: &Device) {
    eventually("the device is live", || async {
        device.look(|seen| !seen.connected.is_empty() && !seen.last_id.is_empty())
    })
    .await;
}

async fn has(device: &Device, count: usize) {
    eventually("the device has them", || async { device.look(|seen| seen.ids.len() >= count) }).await;
}

async fn send(inboxes: &Inboxes, edge: &Edge, key: &str, notification: Value) -> String {
    inboxes.send_until_accepted(std::slice::from_ref(&edge.url), key, &notification).await
}
