//! What is left of an earlier life of a room in the next.

use std::collections::BTreeSet;

use fred::prelude::*;
use tutti_e2e::eventually;
use tutti_e2e::redis::Redis;
use tutti_feed::{channel, head_key};
use tutti_model::{GoneReason, RoomSettings, names};
use tutti_queue::rooms::{Error, Refusal, Rooms, TicketAction, TicketReply, TicketStatus};

use super::comparison::Pair;
use super::{LEASE, SECOND, SEED};

#[tokio::test]
async fn a_key_of_an_earlier_life_of_a_room_gets_a_ticket_of_its_own() {
    let redis = Redis::start().unwrap();
    let rooms = Rooms::new(redis.client().clone(), 1000);
    let settings = RoomSettings {
        max_active: 1,
        admit_per_second: 1000.0,
        claim_seconds: 600,
        session_seconds: 600,
        pass_seconds: 60,
        grace_seconds: 600,
        ..RoomSettings::default()
    };
    let put = async || rooms.put("sale", &settings, None, SEED, "").await.unwrap();
    let join = async |key: u8| rooms.join("sale", [key; 16]).await.unwrap();
    put().await;
    let earlier = [join(1).await, join(2).await];
    assert_eq!(join(2).await.joined_us, earlier[1].joined_us, "within a life it is the ticket that it was");

    // Redis loses the room, but neither its idempotency keys nor its tickets.
    let () = redis.client().del(head_key(&names::room_feed("sale"))).await.unwrap();
    put().await;
    let others = [join(3).await, join(4).await];
    let back = join(2).await;
    assert_eq!(back.number, 3, "it is not the ticket of another visitor");
    let visitors = others.iter().chain([&back]).map(|told| told.joined_us).collect::<BTreeSet<_>>();
    assert_eq!(visitors.len(), 3);
    assert_eq!(back, TicketReply { now_us: back.now_us, ..join(2).await });

    // If Redis loses the tickets, nobody gets an error of a script. A visitor who comes again gets another place.
    let () = redis.client().del(format!("{}:tickets:0", channel(&names::room_feed("sale")))).await.unwrap();
    assert_eq!(join(2).await.number, 4);
    for told in &others {
        let lost = rooms.act("sale", TicketAction::Get, told.number, told.epoch, told.joined_us).await;
        assert!(matches!(lost, Err(Error::Refused(Refusal::NoTicket))), "{lost:?}");
    }
    let removed = rooms.remove("sale", 1).await;
    assert!(matches!(removed, Err(Error::Refused(Refusal::NoTicket))), "{removed:?}");
    rooms.tick("sale", 500).await.unwrap();
    let () = redis.client().del(format!("{}:waiting", channel(&names::room_feed("sale")))).await.unwrap();
    let waits =
        rooms.act("sale", TicketAction::Get, 4, join(2).await.epoch, join(2).await.joined_us).await.unwrap();
    assert_eq!(
        waits.status,
        TicketStatus::Gone(GoneReason::Removed),
        "who has no place in line any more does not wait"
    );
    eventually("the others are not waited for", async || rooms.tick("sale", 500).await.unwrap().waiting == 0)
        .await;
    assert_eq!(join(9).await.position, 1, "the line goes on");
}

#[tokio::test]
async fn what_an_edge_had_in_an_earlier_life_of_a_room_counts_for_nobody_in_the_next() {
    for are_edges_lost in [false, true] {
        let redis = Redis::start().unwrap();
        let settings = RoomSettings {
            max_active: 1,
            admit_per_second: 1000.0,
            claim_seconds: 600,
            session_seconds: 600,
            pass_seconds: 60,
            grace_seconds: 3,
            ..RoomSettings::default()
        };
        let mut pair = Pair::new(&redis, settings.clone(), 500).await;
        for n in 1..=3u8 {
            pair.rooms.join(&pair.room, [n; 16]).await.unwrap();
        }
        for edge in ["edge-0", "edge-1"] {
            assert!(pair.rooms.presence(&pair.room, edge, true, LEASE, &[2], &[]).await.unwrap());
        }
        let base = channel(&names::room_feed(&pair.room));
        let () = redis.client().del(head_key(&names::room_feed(&pair.room))).await.unwrap();
        if are_edges_lost {
            let () = redis.client().del(format!("{base}:edges")).await.unwrap();
        }
        pair.rooms.put(&pair.room, &settings, None, SEED, "").await.unwrap();
        let seen: i64 = redis.client().exists(format!("{base}:seen:edge-1")).await.unwrap();
        assert_eq!(seen, i64::from(are_edges_lost), "what can be named is cleared away");

        for n in 4..=5u8 {
            pair.rooms.join(&pair.room, [n; 16]).await.unwrap();
        }
        assert!(pair.rooms.presence(&pair.room, "edge-0", true, LEASE, &[], &[]).await.unwrap());
        for _ in 0..4 {
            pair.model.clock += 2 * SECOND;
            pair.set_clock().await;
            pair.rooms.tick(&pair.room, 500).await.unwrap();
        }
        let kept = pair.rooms.read(&pair.room, true).await.unwrap().state;
        // The third ticket of the earlier life must not count: nobody has its number yet.
        assert_eq!(
            (kept.tickets, kept.waiting, kept.away),
            (2.0, 0.0, 1.0),
            "only its stream held the place"
        );
    }
}
