//! Lets the time of all rooms go on, and has their changes relayed. Any number of replicas may do so.

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
use crate::rooms::{Error, Refusal, Ticked};

/// Changes that one call makes at most, so that it does not hold Redis up.
const MOST: u32 = 500;
/// How often the list of rooms is read.
const LIST: Duration = Duration::from_secs(1);
/// How often a room that is there is put on the list: of a Redis Cluster, one node has the room, another the list,
/// and may have lost it.
const RELIST: Duration = Duration::from_secs(10);
/// A room on the list that is not there for so many reads is taken off it.
const MISSED: u32 = 60;

/// Runs until it is told to stop.
pub(crate) async fn run(relay: Arc<Relay>, stop: CancellationToken) {
    let mut tasks: HashMap<String, JoinHandle<()>> = HashMap::new();
    let mut lists = interval(LIST);
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
                    tasks.entry(room.clone()).or_insert_with(|| tokio::spawn(keep(relay.clone(), room)));
                }
            }
            Err(error) if !std::mem::replace(&mut failing, true) => warn!(%error, "the list of rooms"),
            Err(_) => {}
        }
    }
    for task in tasks.into_values() {
        task.abort();
    }
}

/// Keeps one room going until it is over.
async fn keep(relay: Arc<Relay>, room: String) {
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

async fn tick(relay: &Relay, room: &str, changed: &Notify) {
    let mut steps = interval(relay.config.tick);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let label = RoomLabel { room: room.to_owned() };
    let (mut missed, mut failures) = (0, 0u32);
    let mut listed = Instant::now();
    loop {
        match relay.rooms.tick(room, MOST).await {
            Ok(Ticked { more, seq, relayed, waiting, active }) => {
                (missed, failures) = (0, 0);
                if listed.elapsed() >= RELIST && relay.rooms.enlist(room).await.is_ok() {
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
            // Cleared away; what it had to say may still be on its way to Kafka.
            Err(Error::Refused(Refusal::Over)) => {
                changed.notify_one();
                relay.metrics.forget(room);
                sleep(LIST).await;
            }
            Err(Error::Refused(_)) => {
                missed += 1;
                if missed >= MISSED {
                    info!(room, "the room is gone");
                    let _ = relay.rooms.unlist(room).await;
                    return;
                }
                sleep(LIST).await;
            }
            Err(error) => {
                relay.metrics.tick_errors.inc();
                failures += 1;
                if failures.is_power_of_two() {
                    warn!(room, %error, failures, "the room's time stands still");
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
        steps.tick().await;
    }
}
