//! Heartbeats, stalls, the drain, and work that a stream waits for.

use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::{LONG, connection, fill, hub, plain, read_all, read_to};
use crate::hub::end_within;
use crate::limits::Owner;
use crate::pipe::pipe;
use crate::socket::Socket;
use crate::stream::{CloseReason, WriteOutcome};
use crate::turns::Turns;

const SHORT: Duration = Duration::from_millis(20);

#[actix_web::test]
async fn a_heartbeat_brings_the_id_when_it_is_due_and_not_before() {
    let (lazy, _) = hub(|_| {});
    let (server, mut client) = connection().await;
    let mut stream = plain(Socket::Client(server));
    lazy.keep_alive(&mut stream, "early").await.unwrap();
    let (eager, _) = hub(|timeouts| timeouts.heartbeat = SHORT);
    eager.pause(&mut stream, Instant::now() + LONG).await;
    eager.keep_alive(&mut stream, "7.8").await.unwrap();
    let text = read_to(&mut client, "\n\n").await;
    assert!(text.starts_with("event: heartbeat\ndata: {\"at\":"), "{text}");
    assert!(text.ends_with("}\nid: 7.8\n\n"), "{text}");
}

#[actix_web::test]
async fn a_client_that_takes_nothing_stalls() {
    let (hub, _) = hub(|timeouts| timeouts.stall = SHORT);
    let (server, _client) = connection().await;
    let mut stream = plain(Socket::Client(server));
    fill(&mut stream);
    assert_eq!(hub.write(&mut stream, b"x"[..].into()).await, Err(CloseReason::Stalled));
}

#[actix_web::test]
async fn a_frame_that_is_under_way_when_its_stream_ends_may_be_finished() {
    let (hub, _) = hub(|_| {});
    let (server, client) = connection().await;
    let mut stream = plain(Socket::Client(server));
    let WriteOutcome::Partial(rest) = stream.try_write(vec![b'x'; 8 << 20].into()) else {
        panic!("no socket takes 8 MB")
    };
    stream.ends_at = Instant::now();
    let reading = tokio::spawn(read_all(client));
    assert_eq!(hub.write(&mut stream, rest).await, Ok(()));
    assert!(hub.is_due(&mut stream));
    hub.close(stream);
    let read = reading.await.unwrap();
    assert!(read.len() > 8 << 20 && read.ends_with(b"\n\n"), "{} bytes", read.len());
}

#[test]
fn ends_are_spread_over_the_whole_drain_window() {
    let (mut rng, now, window) = (StdRng::seed_from_u64(7), Instant::now(), Duration::from_secs(10));
    let mut per_second = [0; 10];
    for _ in 0..1000 {
        let after = end_within(&mut rng, now, window) - now;
        per_second[after.as_secs() as usize] += 1;
    }
    assert!(per_second.iter().all(|ends| (70..=130).contains(ends)), "{per_second:?}");
    assert_eq!(
        end_within(&mut rng, now, Duration::ZERO),
        now,
        "who comes when the window is over ends at once"
    );
}

#[actix_web::test]
async fn a_stream_that_drains_ends_within_the_window_unless_it_ends_before() {
    let (hub, draining) = hub(|timeouts| timeouts.drain = Duration::from_secs(10));
    draining.cancel();
    let stream = || plain(Socket::Part(pipe(16).0));
    let (mut drained, mut short) = (stream(), stream());
    short.ends_at = Instant::now();
    for stream in [&mut drained, &mut short] {
        hub.drain_stream(stream);
    }
    let end = drained.ends_at;
    assert!(end <= Instant::now() + Duration::from_secs(10));
    assert_eq!((drained.planned_end, short.planned_end), (CloseReason::Drain, CloseReason::Life));
    hub.drain_stream(&mut drained);
    assert_eq!(drained.ends_at, end, "a stream has one end");
}

#[actix_web::test]
async fn a_client_that_takes_nothing_gives_its_turn_back_and_gets_another_when_it_reads() {
    let (hub, _) = hub(|timeouts| timeouts.heartbeat = SHORT);
    let (server, client) = connection().await;
    let mut stream = plain(Socket::Client(server));
    fill(&mut stream);
    let turns = Turns::new(1, Gauge::default());
    let begun = Rc::new(Cell::new(0));
    let (its_turns, its_begun) = (turns.clone(), begun.clone());
    let waiting = spawn_local(async move {
        let work = async || {
            let _turn = its_turns.take(Owner::User("slow".to_owned())).await;
            its_begun.set(its_begun.get() + 1);
            if its_begun.get() == 1 { pending().await } else { its_begun.get() }
        };
        hub.meanwhile(&mut stream, work).await
    });
    while begun.get() == 0 {
        tokio::task::yield_now().await;
    }
    // The slow client has the only turn, and gives it back when its heartbeat blocks.
    let other = turns.take(Owner::User("other".to_owned())).await;
    let reading = tokio::spawn(read_all(client));
    drop(other);
    assert_eq!(waiting.await.unwrap(), Ok(Some(2)));
    assert!(String::from_utf8(reading.await.unwrap()).unwrap().contains("event: heartbeat\n"));
}
