//! The waiting room while processes die, and while Kafka or Redis is away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::signal::Signal;
use prost::Message as _;
use reqwest::Method;
use roaring::RoaringBitmap;
use serde_json::Value;
use tokio::time::sleep;
use tutti_e2e::eventually;
use tutti_e2e::kafka::Kafka;
use tutti_e2e::rooms::{Joined, Rooms, Stream, admin, key};
use tutti_e2e::service::Service;
use tutti_e2e::testbed::{Edge, Testbed, UNLIMITED};
use tutti_feed::{Position, Record, read_log};
use tutti_load::crowd::{Crowd, Figures, Visitor};
use tutti_model::{RoomEvent, names, room, room_event::Event};

/// Returns the whole log of a room.
async fn log_of(rooms: &Rooms, room: &str) -> Vec<Record> {
    let mut all: Vec<Record> = Vec::new();
    loop {
        let held: Option<Position> = all.last().map(|record| record.position);
        let page = read_log(rooms.testbed.redis.client(), &names::room_feed(room), held, 2000).await.unwrap();
        let before = all.len();
        all.extend(page.into_iter().filter(|record| Some(record.position) != held));
        if all.len() == before {
            return all;
        }
    }
}

/// Returns the changes that Kafka must have for a log, in its order.
fn changes_of(room: &str, log: &[Record]) -> Vec<Value> {
    log.iter()
        .filter_map(|record| {
            let event = RoomEvent::decode(record.payload.clone()).unwrap();
            let Position { epoch, seq, time_us } = record.position;
            room::event_to_json(room, epoch, seq, time_us, &event)
        })
        .collect()
}

/// Checks that Kafka has each change of the room once and in order, after dropping those that came before. Returns
/// the log.
async fn kafka_is_complete(rooms: &Rooms, edge: &Edge, room: &str) -> Vec<Record> {
    let log = log_of(rooms, room).await;
    let expected = changes_of(room, &log);
    assert!(!expected.is_empty());
    rooms.until_relayed(edge, room).await;
    eventually("it can be read there", || async { rooms.relayed(room).len() >= expected.len() }).await;
    // The room went on meanwhile.
    let relayed = rooms.relayed(room);
    let at = relayed.iter().zip(&expected).position(|(a, b)| a != b);
    assert_eq!(at, None, "{:?} but {:?}", at.map(|at| &relayed[at]), at.map(|at| &expected[at]));
    log
}

/// Checks a log against the promises: in order, each once, never too many, never too fast.
struct Judge {
    max_active: u64,
    rate: f64,
}

impl Judge {
    /// Checks a log. Returns the tickets that joined and those that were admitted.
    fn judge(&self, log: &[Record]) -> (BTreeSet<u64>, BTreeSet<u64>) {
        let (mut joined, mut admitted, mut inside) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let (mut last_place, mut credit, mut credit_at) = (0, (self.rate / 4.0).max(1.0), 0u64);
        for (i, record) in log.iter().enumerate() {
            assert_eq!(record.position.seq, i as u64 + 1, "no number is missing");
            match RoomEvent::decode(record.payload.clone()).unwrap().event.unwrap() {
                Event::Joined(e) => {
                    assert!(joined.insert(e.ticket), "ticket {} was given out twice", e.ticket);
                }
                Event::Admitted(e) => {
                    assert!(joined.contains(&e.ticket));
                    assert!(admitted.insert(e.ticket), "ticket {} was admitted twice", e.ticket);
                    assert!(e.place > last_place, "place {} came after {last_place}", e.place);
                    last_place = e.place;
                    inside.insert(e.ticket);
                    assert!(inside.len() as u64 <= self.max_active, "{} were inside", inside.len());
                    let passed = (record.position.time_us.saturating_sub(credit_at)) as f64 / 1e6;
                    credit = (credit + self.rate * passed).min((self.rate / 4.0).max(1.0)) - 1.0;
                    credit_at = record.position.time_us;
                    // Records of one call are a microsecond apart.
                    assert!(credit > -1.0, "too fast at {}: {credit}", record.position.seq);
                }
                Event::Gone(e) => {
                    inside.remove(&e.ticket);
                }
                _ => {}
            }
        }
        (joined, admitted)
    }
}

/// Checks that each position that a visitor was shown is the true rank at that version. Returns the number of
/// positions.
fn positions_are_true(log: &[Record], visitors: &[Visitor]) -> usize {
    let mut shown: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
    for visitor in visitors {
        for (position, version) in &visitor.updates {
            shown.entry(*version).or_default().push((visitor.ticket, position.unwrap()));
        }
    }
    let (mut waiting, mut checked) = (RoaringBitmap::new(), 0);
    for record in log {
        match RoomEvent::decode(record.payload.clone()).unwrap().event.unwrap() {
            Event::Joined(e) => drop(waiting.insert(e.ticket as u32)),
            Event::Admitted(e) => drop(waiting.remove(e.ticket as u32)),
            Event::Gone(e) => drop(waiting.remove(e.ticket as u32)),
            _ => {}
        }
        for (ticket, position) in shown.remove(&record.position.seq).unwrap_or_default() {
            assert!(waiting.contains(ticket as u32));
            assert_eq!(position, waiting.rank(ticket as u32), "of {ticket} at {}", record.position.seq);
            checked += 1;
        }
    }
    assert!(shown.is_empty(), "versions that are not in the log: {:?}", shown.keys());
    checked
}

async fn set_mode(rooms: &Rooms, edge: &Edge, mode: &str) {
    rooms.insist(Method::POST, edge, &format!("/v1/rooms/sale/{mode}"), &admin(), "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_gets_in_in_order_once_and_not_too_fast_while_servers_are_killed() {
    let mut rooms = Rooms::start(Testbed::new(1).await, 3, &[]).await;
    let mut edges = [rooms.edge(&UNLIMITED).await, rooms.edge(&UNLIMITED).await];
    let judge = Judge { max_active: 900, rate: 1500.0 };
    let settings = format!(
        r#"{{"maxActive":{},"admitPerSecond":{},"claimSeconds":1,"sessionSeconds":60,"graceSeconds":600}}"#,
        judge.max_active, judge.rate
    );
    rooms.put(&edges[0], "sale", &settings).await;
    // Pausing makes visitors wait, also where joins are slower than the rate of admissions.
    set_mode(&rooms, &edges[0], "pause").await;
    let crowd = Crowd {
        edges: edges.iter().map(|edge| edge.url.clone()).collect(),
        room: "sale".into(),
        people: 20_000,
        over: Duration::from_secs(5),
        streams: 200,
        no_shows: true,
        stay: Duration::from_millis(200),
    };
    let figures = Arc::new(Figures::default());
    let ours = figures.clone();
    let coming = tokio::spawn(async move {
        // Without this output, a test that waits for the others would not show why there are none.
        crowd.run(&ours).await.inspect_err(|error| eprintln!("the crowd broke off: {error:#}"))
    });
    let (mut kills, mut paused) = (0, true);
    let joined = || figures.joined.load(Ordering::Relaxed);
    while joined() < 19_000 {
        let before = joined();
        let killed: &mut Service = match kills % 5 {
            edge @ (1 | 3) => &mut edges[edge / 2].service,
            queue => &mut rooms.queues[queue / 2],
        };
        killed.kill();
        eventually("the others go on", || async { joined() > before + 200 || joined() == 20_000 }).await;
        killed.run();
        killed.wait_ready().await;
        eventually("all go on", || async { joined() > before + 1500 || joined() == 20_000 }).await;
        kills += 1;
        if paused && joined() > 12_000 {
            set_mode(&rooms, &edges[0], "resume").await;
            paused = false;
        }
    }
    let visitors = coming.await.unwrap().unwrap();
    assert!(kills >= 3, "{kills} kills");
    let edge = &edges[0];
    eventually("all are through", || async {
        let figures = rooms.room(edge, "sale").await["figures"].clone();
        figures["waiting"] == 0 && figures["active"] == 0
    })
    .await;

    let log = kafka_is_complete(&rooms, edge, "sale").await;
    let (joined, admitted) = judge.judge(&log);
    assert_eq!(joined.len(), 20_000, "each key gave one ticket");
    assert_eq!(joined, visitors.iter().map(|v| v.ticket).collect(), "those that the visitors have");
    assert_eq!(admitted, joined, "all were admitted");
    let with_streams: Vec<Visitor> = visitors.into_iter().filter(|v| !v.updates.is_empty()).collect();
    assert!(with_streams.len() > 100, "{}", with_streams.len());
    let checked = positions_are_true(&log, &with_streams);
    assert!(checked > 300, "{checked} positions");
    for visitor in &with_streams {
        assert_eq!(visitor.grew, 0, "{visitor:?}");
        assert_eq!(visitor.resets, [""; 0]);
        // A visitor that hears of the turn too late, or cannot claim it while servers are away, has lost it.
        let lost = visitor.lost.as_deref();
        assert!([None, Some("late"), Some("no_show")].contains(&lost), "{lost:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_kafka_is_down_rooms_go_on_and_then_it_has_every_change_in_order() {
    let kafka = Kafka::start().unwrap();
    let rooms = Rooms::start(Testbed::on(&kafka, 1).await, 2, &[]).await;
    let edge = rooms.edge(&[]).await;
    rooms.put(&edge, "sale", r#"{"maxActive":5,"admitPerSecond":50,"claimSeconds":1}"#).await;
    rooms.join(&edge, "sale").await;
    kafka.kill();
    let mut all = Vec::new();
    let until = tokio::time::Instant::now() + Duration::from_secs(20); // the fault itself lasts so long
    while tokio::time::Instant::now() < until {
        all.push(rooms.join(&edge, "sale").await);
        sleep(Duration::from_millis(100)).await; // ten come in a second
    }
    let figures = rooms.room(&edge, "sale").await["figures"].clone();
    assert!(figures["admitted"].as_u64().unwrap() > 40, "admissions went on: {figures}");
    assert!(figures["unrelayed"].as_u64().unwrap() > all.len() as u64, "{figures}");
    kafka.run().unwrap();
    let log = kafka_is_complete(&rooms, &edge, "sale").await;
    Judge { max_active: 5, rate: 50.0 }.judge(&log);
}

#[tokio::test]
async fn a_room_whose_changes_kafka_does_not_take_refuses_to_take_more() {
    let kafka = Kafka::start().unwrap();
    let rooms = Rooms::start(Testbed::on(&kafka, 1).await, 1, &[("rooms.max_unrelayed", "20")]).await;
    let edge = rooms.edge(&[]).await;
    rooms.put(&edge, "sale", r#"{"maxActive":1,"admitPerSecond":1}"#).await;
    kafka.kill();
    let mut refused = None;
    for _ in 0..40 {
        let (status, after, body) = rooms.ask_to_join(&edge, "sale", &key(), None).await.unwrap();
        if status != 201 {
            refused = Some((status.as_u16(), after, body));
            break;
        }
    }
    let (status, after, body) = refused.expect("a join is refused");
    assert_eq!((status, after.as_deref()), (503, Some("2")), "{body}");
    kafka.run().unwrap();
    eventually("joins go on when Kafka is back", || async {
        rooms.ask_to_join(&edge, "sale", &key(), None).await.unwrap().0 == 201
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_down_joins_are_refused_and_afterwards_nothing_is_lost_or_twice() {
    let rooms = Rooms::start(Testbed::new(1).await, 2, &[]).await;
    let edge = rooms.edge(&[]).await;
    rooms.put(&edge, "sale", r#"{"maxActive":1,"admitPerSecond":50}"#).await;
    let inside = rooms.join(&edge, "sale").await;
    rooms.act(reqwest::Method::POST, &edge, "sale", &inside, "/claim").await;
    let waits = rooms.join(&edge, "sale").await;
    let stream = Stream::open(&edge, "sale", waits.visitor()).await;
    let status_is = |word: &str| stream.heard().statuses.last().is_some_and(|s| s == word);
    eventually("it is live", || async { status_is("live") }).await;

    rooms.testbed.redis.signal(Signal::SIGSTOP);
    let keys: Vec<String> = (0..40).map(|_| key()).collect();
    let during = keys.iter().map(|key| rooms.ask_to_join(&edge, "sale", key, None));
    for answer in futures_util::future::join_all(during).await {
        let (status, after, body) = answer.unwrap();
        assert_eq!((status.as_u16(), after.as_deref()), (503, Some("2")), "{body}");
    }
    eventually("the stream says stale", || async { status_is("stale") }).await;
    assert!(!stream.is_over(), "and stays open");
    rooms.testbed.redis.signal(Signal::SIGCONT);
    eventually("joins go on", || async {
        rooms.ask_to_join(&edge, "sale", &keys[0], None).await.unwrap().0 == 201
    })
    .await;
    let mut tickets = BTreeSet::new();
    for key in keys.iter().chain(&keys) {
        let (status, _, body) = rooms.ask_to_join(&edge, "sale", key, None).await.unwrap();
        assert_eq!(status, 201, "{body}");
        tickets.insert(Joined::of(body).ticket);
    }
    assert_eq!(tickets.len(), keys.len(), "a key is a ticket, however often it was tried");
    eventually("the stream is live again", || async { status_is("live") }).await;
    assert!(!stream.is_over(), "on the same connection");
    let heard = stream.heard();
    assert_eq!((heard.grew, heard.lost), (0, None));
    assert_eq!(heard.updates.last().unwrap().0, Some(1), "nobody lost the place while Redis was away");
    let log = kafka_is_complete(&rooms, &edge, "sale").await;
    let (joined, _) = Judge { max_active: 1, rate: 50.0 }.judge(&log);
    assert_eq!(joined.len(), 2 + keys.len());
}
