//! Keys of a room that are forgotten, or that Redis has lost.

use fred::prelude::*;
use tutti_e2e::redis::Redis;
use tutti_e2e::unique;
use tutti_feed::channel;
use tutti_model::{GoneReason, RoomSettings, names, room};
use tutti_queue::rooms::{Error, Refusal, Rooms, TicketAction, TicketStatus};

use super::comparison::{Pair, with_own_clock};
use super::{LEASE, SECOND, SEED};

#[tokio::test]
async fn tickets_that_are_gone_for_long_are_forgotten_and_their_keys_with_them() {
    let redis = Redis::start().unwrap();
    let settings = RoomSettings {
        max_active: 1000,
        admit_per_second: 10_000.0,
        claim_seconds: 1,
        session_seconds: 1,
        pass_seconds: 1,
        grace_seconds: 1000,
        ..RoomSettings::default()
    };
    // The scripts forget after a day of room time, of which a tick makes 2 s at most. Ten seconds are enough for a
    // test.
    let mut pair = Pair::new(&redis, settings.clone(), 500).await;
    pair.rooms = Rooms::with_scripts(pair.redis.clone(), 1_000_000, |text| {
        assert!(text.contains("KEEP_GONE = 86400000000"));
        with_own_clock(&text).replace("KEEP_GONE = 86400000000", "KEEP_GONE = 10000000")
    });
    let mut told = Vec::new();
    for n in 0..200u8 {
        told.push(pair.rooms.join(&pair.room, [n; 16]).await.unwrap());
    }
    let tickets = async || -> usize {
        let keys: Vec<String> =
            redis.command(&["KEYS", &format!("tutti:?room.{}?:tickets:*", pair.room)]).await.unwrap();
        keys.len()
    };
    assert_eq!(tickets().await, 4);
    // All tickets are no-shows after a second. The scripts look for what can be forgotten every 60 s.
    for _ in 0..45 {
        pair.model.clock += 2 * SECOND;
        pair.set_clock().await;
        pair.rooms.tick(&pair.room, 500).await.unwrap();
    }
    assert_eq!(tickets().await, 1, "those of the last, which may grow yet, stay");
    let gone = pair.rooms.act(&pair.room, TicketAction::Get, 5, told[4].epoch, told[4].joined_us).await;
    assert!(matches!(gone, Err(Error::Refused(Refusal::NoTicket))), "{gone:?}");
    let again = pair.rooms.join(&pair.room, [4; 16]).await.unwrap();
    assert_eq!(again.number, 201, "its key is forgotten, too");
    let last = &told[199];
    let kept = pair.rooms.act(&pair.room, TicketAction::Get, 200, last.epoch, last.joined_us).await.unwrap();
    assert_eq!(kept.status, TicketStatus::Gone(GoneReason::NoShow));
}

#[tokio::test]
async fn a_number_beyond_all_tickets_is_of_none_and_keeps_no_other_from_being_present() {
    let redis = Redis::start().unwrap();
    let (rooms, room) = (Rooms::new(redis.client().clone(), 1_000_000), unique("room"));
    rooms.put(&room, &room::defaults(), None, SEED, "").await.unwrap();
    rooms.join(&room, [1; 16]).await.unwrap();
    for beyond in [2, 1 << 32, (1 << 53) + 1, i64::MAX as u64, u64::MAX] {
        let present = rooms.presence(&room, "edge-0", true, LEASE, &[1, beyond], &[beyond]).await.unwrap();
        assert!(present, "{beyond}");
        let removed = rooms.remove(&room, beyond).await;
        assert!(matches!(removed, Err(Error::Refused(Refusal::NoTicket))), "{beyond}: {removed:?}");
    }
}

#[tokio::test]
async fn a_room_whose_list_of_those_inside_is_lost_has_room_again() {
    let redis = Redis::start().unwrap();
    let settings = RoomSettings {
        max_active: 2,
        admit_per_second: 1000.0,
        claim_seconds: 1,
        session_seconds: 600,
        pass_seconds: 60,
        grace_seconds: 600,
        ..RoomSettings::default()
    };
    let mut pair = Pair::new(&redis, settings, 500).await;
    for n in 0..4u8 {
        pair.rooms.join(&pair.room, [n; 16]).await.unwrap();
    }
    let active = async |pair: &Pair| pair.rooms.read(&pair.room, true).await.unwrap().state.active;
    assert_eq!(active(&pair).await, 2.0);
    let first = pair.rooms.join(&pair.room, [0; 16]).await.unwrap();
    let lost = format!("{}:active", channel(&names::room_feed(&pair.room)));
    assert_eq!(redis.client().del::<u64, _>(lost).await.unwrap(), 1);
    // A visitor who was inside stays inside, and is counted once.
    for act in [TicketAction::Claim, TicketAction::Renew] {
        pair.rooms.act(&pair.room, act, 1, first.epoch, first.joined_us).await.unwrap();
    }
    pair.model.clock += SECOND;
    pair.set_clock().await;
    for active in [1, 2] {
        let ticked = pair.rooms.tick(&pair.room, 500).await.unwrap();
        assert_eq!(ticked.active, active, "it is counted, and then another comes in");
    }
    pair.rooms.act(&pair.room, TicketAction::Leave, 1, first.epoch, first.joined_us).await.unwrap();
    assert_eq!(active(&pair).await, 1.0);
    // A visitor who was inside is in no list any more. Leaving must not reduce the count.
    let second = pair.rooms.join(&pair.room, [1; 16]).await.unwrap();
    pair.rooms.act(&pair.room, TicketAction::Leave, 2, second.epoch, second.joined_us).await.unwrap();
    assert_eq!(active(&pair).await, 1.0);
}
