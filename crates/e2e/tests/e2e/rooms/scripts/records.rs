//! What the scripts write into the log, and what Kafka has of it.

use bytes::Bytes;
use prost::Message as _;
use tutti_e2e::redis::Redis;
use tutti_e2e::unique;
use tutti_feed::{Position, read_log};
use tutti_model::queue::RoomChanges;
use tutti_model::room_event::Event;
use tutti_model::{RoomEvent, RoomSettings, names};
use tutti_queue::rooms::{Error, Refusal, RelayLease, Rooms};

use super::{SECOND, SEED};

#[tokio::test]
async fn what_kafka_has_of_a_history_that_redis_lost_moves_no_position() {
    let redis = Redis::start().unwrap();
    let (rooms, room) = (Rooms::new(redis.client().clone(), 1_000_000), unique("room"));
    let settings =
        RoomSettings { max_active: 1, admit_per_second: 1.0, grace_seconds: 9, ..Default::default() };
    rooms.put(&room, &settings, None, SEED, "").await.unwrap();
    for n in 0..5u8 {
        rooms.join(&room, [n; 16]).await.unwrap();
    }
    let RelayLease { epoch, relayed, seq } = rooms.relay(&room, "a", 5 * SECOND, None).await.unwrap();
    assert_eq!(relayed, 0);
    let log = read_log(redis.client(), &names::room_feed(&room), None, 100).await.unwrap();
    let third = log[2].position;
    let unknown = [
        Position { seq: seq + 20, ..third },
        Position { time_us: third.time_us + 1, ..third },
        Position { epoch: epoch + 1, ..third },
    ];
    for place in unknown {
        assert_eq!(rooms.relay(&room, "a", 5 * SECOND, Some(place)).await.unwrap().relayed, 0, "{place:?}");
    }
    assert_eq!(rooms.relay(&room, "a", 5 * SECOND, Some(third)).await.unwrap().relayed, 3);
    assert!(matches!(rooms.relay(&room, "b", 5 * SECOND, None).await, Err(Error::Refused(Refusal::Held))));
}

#[tokio::test]
async fn the_script_writes_settings_as_protobuf_has_them_whether_all_or_some_change() {
    let redis = Redis::start().unwrap();
    let (rooms, room) = (Rooms::new(redis.client().clone(), 1_000_000), unique("room"));
    let newest = async || {
        let log = read_log(redis.client(), &names::room_feed(&room), None, 100).await.unwrap();
        log.last().unwrap().payload.clone()
    };
    let written = |settings: &RoomSettings| {
        Bytes::from(RoomEvent { event: Some(Event::Settings(settings.clone())) }.encode_to_vec())
    };
    let opens_at_ms = 4_102_444_800_000;
    let mut settings = RoomSettings {
        max_active: 1_000_000,
        admit_per_second: 0.1,
        claim_seconds: 127,
        session_seconds: 604_800,
        pass_seconds: 128,
        grace_seconds: 86_400,
        opens_at_ms,
        seed_sha256: "a hash".to_owned(),
    };
    rooms.put(&room, &settings, Some(opens_at_ms), SEED, "a hash").await.unwrap();
    assert_eq!(newest().await, written(&settings));
    let changes =
        RoomChanges { admit_per_second: Some(1234.5), pass_seconds: Some(1), ..RoomChanges::default() };
    rooms.patch(&room, &changes).await.unwrap();
    (settings.admit_per_second, settings.pass_seconds) = (1234.5, 1);
    assert_eq!(newest().await, written(&settings));
    let missing = rooms.patch(&unique("room"), &changes).await;
    assert!(matches!(missing, Err(Error::Refused(Refusal::NoRoom))), "{missing:?}");
}
