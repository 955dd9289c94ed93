//! What the scripts keep in Redis, as literal bytes: versions of the service that run side by side, and later ones, read
//! it.

use bytes::Bytes;
use fred::prelude::*;
use serde_json::{Value as Json, json};
use tutti_e2e::redis::Redis;
use tutti_e2e::unique;
use tutti_feed::{Client, channel, head_key, read_log};
use tutti_model::{Mode, RoomSettings, names};
use tutti_queue::rooms::{Phase, Rooms, TicketAction, TicketStatus};

use super::comparison::with_own_clock;
use super::{SECOND, START};

/// A room at `START` in which ticket 1 was admitted and ticket 2 waits, as MessagePack.
const ROOM: &str = "de0025a36d617801a472617465cb3fe0000000000000a5636c61696d1ea773657373696f6ecd0258a4706173733ca567\
    7261636578a56f70656e7300a46d6f646500a5706861736502a473656564a6612073656564ab736565645f736861323536a6612068617368a5\
    6561726c7900a56d6f76656400a77469636b65747302a777616974696e6701a46e65787402a661637469766501a861646d697474656401a763\
    6c61696d656400a46c65667400a86e6f5f73686f777300a76578706972656400a46177617900a26174cf0006651728988000a36e6f7700a663\
    726564697400a5737765707400a470616365cb3fe0000000000000a870756c73655f617400ae70756c73655f61646d697474656400a772656c\
    6179656400a572656c6179a0ab72656c61795f756e74696c00a670757267656400a96c6173745f6177617979a7636c656172656400a8636c65\
    61725f617400";
/// The tickets of [`ROOM`], by number, as MessagePack.
const TICKETS: [(&str, &str); 2] = [
    ("1", "9602cf0006651728988001ce01c9c3800001b007070707070707070707070707070707"),
    ("2", "9601cf0006651728988003000001b009090909090909090909090909090909"),
];
const KEYS: [[u8; 16]; 2] = [[7; 16], [9; 16]];
/// The hashes of the idempotency keys.
const KEY_HASHES: [&str; 2] = ["keys:1799", "keys:2313"];

fn bytes(hex: &str) -> Bytes {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A room whose scripts have the time `START`.
async fn room_at_start(client: &Client) -> (Rooms, String) {
    let room = unique("room");
    let clock = format!("{}test:time", tutti_feed::log_key(&names::room_feed(&room)));
    let () = client.hset(clock, vec![("s", (START / SECOND) as i64), ("us", 0)]).await.unwrap();
    (Rooms::with_scripts(client.clone(), 1000, |text| with_own_clock(&text)), room)
}

#[tokio::test]
async fn the_scripts_write_a_room_in_the_bytes_of_earlier_versions() {
    let redis = Redis::start().unwrap();
    let client = redis.client();
    let (rooms, room) = room_at_start(client).await;
    let feed = names::room_feed(&room);
    let base = channel(&feed);
    let settings = RoomSettings {
        max_active: 1,
        admit_per_second: 0.5,
        claim_seconds: 30,
        session_seconds: 600,
        pass_seconds: 60,
        grace_seconds: 120,
        ..RoomSettings::default()
    };
    rooms.put(&room, &settings, None, "a seed", "a hash").await.unwrap();
    for key in KEYS {
        rooms.join(&room, key).await.unwrap();
    }

    // The order of the fields of a packed map is not defined, so the room is compared by its values.
    let unpack = "return cjson.encode(cmsgpack.unpack(redis.call('HGET', KEYS[1], 'room')))";
    let stored: String = client.eval(unpack, vec![head_key(&feed)], ()).await.unwrap();
    let expected = json!({
        "max": 1, "rate": 0.5, "claim": 30, "session": 600, "pass": 60, "grace": 120, "opens": 0,
        "seed": "a seed", "seed_sha256": "a hash", "mode": 0, "phase": 2, "early": 0, "moved": 0,
        "tickets": 2, "waiting": 1, "next": 2, "active": 1,
        "admitted": 1, "claimed": 0, "left": 0, "no_shows": 0, "expired": 0, "away": 0,
        "at": 1.8e15, "now": 0, "credit": 0, "swept": 0, "pace": 0.5, "pulse_at": 0, "pulse_admitted": 0,
        "relayed": 0, "relay": "", "relay_until": 0, "purged": 0, "last_away": 121, "cleared": 0, "clear_at": 0,
    });
    assert_eq!(serde_json::from_str::<Json>(&stored).unwrap(), expected);
    for (number, expected) in TICKETS {
        let ticket: Bytes = client.hget(format!("{base}:tickets:0"), number).await.unwrap();
        assert_eq!(hex(&ticket), expected, "ticket {number}");
    }
    for ((key, hash), number) in KEYS.iter().zip(KEY_HASHES).zip([1, 2]) {
        let known: u64 = client.hget(format!("{base}:{hash}"), Bytes::copy_from_slice(key)).await.unwrap();
        assert_eq!(known, number);
    }
    let line: Bytes = client.get(format!("{base}:waiting")).await.unwrap();
    assert_eq!(hex(&line), "20", "place 2 is the third bit");
    let inside: Vec<String> = redis.command(&["ZRANGE", &format!("{base}:active"), "0", "-1"]).await.unwrap();
    assert_eq!(inside, ["1"]);
    let deadline: f64 = redis.command(&["ZSCORE", &format!("{base}:active"), "1"]).await.unwrap();
    assert_eq!(deadline, 30e6, "the room time at which the claim ends");
    let away: Vec<String> = redis.command(&["LRANGE", &format!("{base}:away:121"), "0", "-1"]).await.unwrap();
    assert_eq!(away, ["1", "2"]);

    let log = read_log(client, &feed, None, 100).await.unwrap();
    let payloads: Vec<String> = log.iter().map(|record| hex(&record.payload)).collect();
    let expected = [
        "2a14080111000000000000e03f181e20d804283c3078",
        "0a020801",
        "120b0801100118b08af3c2b134",
        "0a020802",
    ];
    assert_eq!(payloads, expected);
}

#[tokio::test]
async fn a_room_that_an_earlier_version_wrote_is_read() {
    let redis = Redis::start().unwrap();
    let client = redis.client();
    let (rooms, room) = room_at_start(client).await;
    let feed = names::room_feed(&room);
    let base = channel(&feed);
    let last_us = START + 3;
    let head =
        vec![("epoch", Bytes::from("7")), ("seq", "4".into()), ("time_us", last_us.to_string().into())];
    let () = client.hset(head_key(&feed), head).await.unwrap();
    let () = client.hset(head_key(&feed), ("room", bytes(ROOM))).await.unwrap();
    for (number, ticket) in TICKETS {
        let () = client.hset(format!("{base}:tickets:0"), (number, bytes(ticket))).await.unwrap();
    }
    for ((key, hash), number) in KEYS.iter().zip(KEY_HASHES).zip([1, 2]) {
        let entry = vec![(Bytes::copy_from_slice(key), number)];
        let () = client.hset(format!("{base}:{hash}"), entry).await.unwrap();
    }
    let () = client.set(format!("{base}:waiting"), bytes("20"), None, None, false).await.unwrap();
    let _: i64 = redis.command(&["ZADD", &format!("{base}:active"), "30000000", "1"]).await.unwrap();

    let stored = rooms.read(&room, true).await.unwrap();
    assert_eq!((stored.epoch, stored.seq, stored.time_us), (7, 4, last_us));
    assert_eq!((stored.first_place, hex(&stored.waiting), stored.active), (0, "20".to_owned(), vec![1]));
    let state = stored.state;
    assert_eq!((state.mode, state.phase), (Mode::Open, Phase::Opened));
    assert_eq!((state.max, state.rate, state.claim, state.session), (1.0, 0.5, 30.0, 600.0));
    assert_eq!((state.pass, state.grace, state.opens), (60.0, 120.0, 0.0));
    assert_eq!((state.seed.0, state.seed_sha256), ("a seed".to_owned(), "a hash".to_owned()));
    assert_eq!((state.tickets, state.waiting, state.active, state.admitted), (2.0, 1.0, 1.0, 1.0));

    let first = rooms.act(&room, TicketAction::Get, 1, 7, START + 1).await.unwrap();
    assert_eq!((first.status, first.until_ms), (TicketStatus::Admitted, START / 1000 + 30_000));
    let second = rooms.act(&room, TicketAction::Get, 2, 7, START + 3).await.unwrap();
    assert_eq!((second.status, second.position), (TicketStatus::Waiting, 1));
    for (key, number) in KEYS.into_iter().zip([1, 2]) {
        assert_eq!(rooms.join(&room, key).await.unwrap().number, number, "the key has its ticket");
    }
}
