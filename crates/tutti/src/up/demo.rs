//! What there is to see: recorded taxis on the map, a waiting room, and notifications.

use std::time::Duration;

use tutti_load::publisher::Publisher;
use tutti_load::taxis::Taxis;
use tutti_service::{CancellationToken, Failure};

use super::backends::TOPIC;
use crate::token::sign;

/// The waiting room.
pub(super) const ROOM: &str = "demo";

/// Plays recorded taxis until `stop`.
pub(super) async fn play(taxis: Taxis, publisher: Publisher, stop: CancellationToken) -> Result<(), Failure> {
    tokio::select! {
        played = taxis.play(&publisher) => {
            played.map_err(|e| Failure::Other(format!("the replay of taxis to topic {TOPIC}: {e:#}")))
        }
        () = stop.cancelled() => Ok(()),
    }
}

/// Sends each of ten users a notification every half a minute, so that there is something in their inboxes.
pub(super) async fn notify_users(
    edge: String,
    secret: String,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let token = sign(&secret, "tutti-up", "notifications:send", Duration::from_secs(30 * 86_400))
        .map_err(|e| Failure::Other(format!("{e:#}")))?;
    let run = rand::random::<u32>();
    let client = reqwest::Client::new();
    let telling = async {
        for n in 1u64.. {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let body = serde_json::json!({
                "to": { "users": [(n % 10 + 1).to_string()] },
                "category": "order",
                "title": format!("Order {n} is on its way"),
                "data": { "order": n },
                "ttlSeconds": 3600,
            });
            let send = client.post(format!("{edge}/v1/notifications")).bearer_auth(&token);
            // Nobody misses a notification that is not accepted.
            let _ = send.header("idempotency-key", format!("{run}-{n}")).body(body.to_string()).send().await;
        }
    };
    tokio::select! {
        () = telling => {}
        () = stop.cancelled() => {}
    }
    Ok(())
}

/// Makes the waiting room, as soon as an edge can.
pub(super) async fn open_room(edge: String, secret: String, stop: CancellationToken) -> Result<(), Failure> {
    let token = sign(&secret, "tutti-up", "rooms:admin", Duration::from_secs(3600))
        .map_err(|e| Failure::Other(format!("{e:#}")))?;
    let settings = r#"{"maxActive":5,"admitPerSecond":1,"sessionSeconds":120}"#;
    let made = async {
        let client = reqwest::Client::new();
        loop {
            let put = client.put(format!("{edge}/v1/rooms/{ROOM}")).bearer_auth(&token).body(settings);
            if put.send().await.is_ok_and(|answer| !answer.status().is_server_error()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        () = made => stop.cancelled().await,
        () = stop.cancelled() => {}
    }
    Ok(())
}
