//! Moves the time of all rooms forward, and has their changes relayed. Any number of replicas may do so at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{info, warn};
use tutti_service::CancellationToken;

use crate::metrics::RoomLabel;
use crate::relay::Relay;
use crate::rooms::{Error, Refusal, TickReply};

/// The maximum number of changes that one call of the tick script makes, so that it does not hold up Redis.
const MAX_CHANGES_PER_CALL: u32 = 500;
/// The interval at which the list of rooms is read.
const LIST_INTERVAL: Duration = Duration::from_secs(1);
/// The interval at which an existing room is put on the list again. In a Redis Cluster the room and the list may be on
/// different nodes, and the node of the list may have lost it.
const RELIST_INTERVAL: Duration = Duration::from_secs(10);
/// The number of ticks, [`LIST_INTERVAL`] apart, after which a listed room that does not exist is taken off the list.
const MAX_MISSED_TICKS: u32 = 60;
/// The pause after a tick that failed.
const RETRY: Duration = Duration::from_millis(100);

/// Ticks and relays all rooms until `stop`.
pub(crate) async fn run(relay: Arc<Relay>, stop: CancellationToken) {
    let mut tasks: HashMap<String, JoinHandle<()>> = HashMap::new();
    let mut lists = interval(LIST_INTERVAL);
    lists.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            _ = lists.tick() => {}
            () = stop.cancelled() => break,
        }
        tasks.retain(|_, task| !task.is_finished());
        match relay.rooms.list().await {
            Ok(rooms) => {
                failing = false;
                for room in rooms {
                    tasks.entry(room.clone()).or_insert_with(|| tokio::spawn(run_room(relay.clone(), room)));
                }
            }
            Err(error) if !std::mem::replace(&mut failing, true) => {
                warn!(%error, "the list of rooms cannot be read; trying again");
            }
            Err(_) => {}
        }
    }
    for task in tasks.into_values() {
        task.abort();
    }
}

/// Ticks and relays one room until it no longer exists.
async fn run_room(relay: Arc<Relay>, room: String) {
    let changed = Notify::new();
    let relaying = async {
        loop {
            changed.notified().await;
            relay.catch_up(&room).await;
        }
    };
    tokio::select! {
        () = tick(&relay, &room, &changed) => {}
        () = relaying => {}
    }
    relay.metrics.forget(&room);
}

/// Ticks one room until it no longer exists. `changed` is notified while Kafka is behind.
async fn tick(relay: &Relay, room: &str, changed: &Notify) {
    let mut steps = interval(relay.config.tick);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let label = RoomLabel { room: room.to_owned() };
    let (mut missed, mut failures) = (0, 0u32);
    let mut listed = Instant::now();
    loop {
        match relay.rooms.tick(room, MAX_CHANGES_PER_CALL).await {
            Ok(TickReply { more, seq, relayed, waiting, active }) => {
                (missed, failures) = (0, 0);
                if listed.elapsed() >= RELIST_INTERVAL && relay.rooms.enlist(room).await.is_ok() {
                    listed = Instant::now();
                }
                relay.metrics.ticks.inc();
                relay.metrics.waiting.get_or_create(&label).set(waiting as i64);
                relay.metrics.active.get_or_create(&label).set(active as i64);
                relay.metrics.unrelayed.get_or_create(&label).set(seq.saturating_sub(relayed) as i64);
                if seq > relayed {
                    changed.notify_one();
                }
                if more {
                    tokio::task::yield_now().await;
                    continue;
                }
            }
            // The room has been cleared away, but some of its records may not have reached Kafka yet.
            Err(Error::Refused(Refusal::Over)) => {
                changed.notify_one();
                relay.metrics.forget(room);
                sleep(LIST_INTERVAL).await;
            }
            Err(Error::Refused(_)) => {
                missed += 1;
                if missed >= MAX_MISSED_TICKS {
                    info!(room, "the room no longer exists");
                    let _ = relay.rooms.unlist(room).await;
                    return;
                }
                sleep(LIST_INTERVAL).await;
            }
            Err(error) => {
                relay.metrics.tick_errors.inc();
                failures += 1;
                if failures.is_power_of_two() {
                    warn!(room, %error, failures, "the room cannot be ticked: it admits and expires nobody; trying again");
                }
                sleep(RETRY).await;
            }
        }
        steps.tick().await;
    }
}
