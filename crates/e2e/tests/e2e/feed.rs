//! Feeds on a real Redis.

use std::time::Duration;

use bytes::Bytes;
use fred::prelude::*;
use tutti_e2e::redis::Redis;
use tutti_e2e::{eventually, unique};
use tutti_feed::{
    Append, AppendMetrics, AppendOutcome, Event, Feed, FollowMetrics, Following, LogLimits, OffsetHistory,
    Offsets, Position, Record, follow,
};

const LIMITS: LogLimits =
    LogLimits { max_age: Duration::from_secs(120), max_entries: 1_000_000, max_bytes: 1 << 30 };

fn feed(redis: &Redis, name: &str, limits: LogLimits) -> Feed {
    Feed::new(redis.client().clone(), name, limits, AppendMetrics::default())
}

fn from(source: &str, from: i64, to: i64) -> Append<'_> {
    Append { source, from, to, fresh: false, payload: Bytes::from(format!("{source}:{from}-{to}")) }
}

async fn append(feed: &Feed, source: &str, at: i64) -> Position {
    let fresh = at == 0;
    match feed.append(Append { fresh, ..from(source, at, at + 1) }).await.unwrap() {
        AppendOutcome::Appended(position) => position,
        other => panic!("{other:?}"),
    }
}

async fn next_record(following: &mut Following) -> Record {
    loop {
        match following.next().await.unwrap() {
            Event::Record { record, .. } => return record,
            Event::Heads(_) | Event::HeldBack { .. } => {}
            Event::Reset { reason, .. } => panic!("reset: {reason:?}"),
        }
    }
}

#[tokio::test]
async fn an_append_is_a_compare_and_set_on_the_position_of_its_source() {
    let redis = Redis::start().unwrap();
    let feed = feed(&redis, "cas", LIMITS);
    assert_eq!(feed.position("a").await.unwrap(), None);
    assert_eq!(feed.append(from("a", 5, 8)).await.unwrap(), AppendOutcome::Refused { position: None });

    let AppendOutcome::Appended(first) =
        feed.append(Append { fresh: true, ..from("a", 5, 8) }).await.unwrap()
    else {
        panic!("not appended");
    };
    assert_eq!(first.seq, 1);
    assert_eq!(feed.position("a").await.unwrap(), Some(8));
    assert_eq!(feed.append(from("a", 5, 8)).await.unwrap(), AppendOutcome::Duplicate { position: 8 });
    let again = Append { fresh: true, ..from("a", 5, 8) };
    assert_eq!(feed.append(again).await.unwrap(), AppendOutcome::Duplicate { position: 8 });
    assert_eq!(feed.append(from("a", 9, 10)).await.unwrap(), AppendOutcome::Refused { position: Some(8) });

    let AppendOutcome::Appended(second) = feed.append(from("a", 8, 8)).await.unwrap() else {
        panic!("not appended")
    };
    assert_eq!((second.epoch, second.seq), (first.epoch, 2));
    assert!(second.time_us > first.time_us);
    let entries: u64 = redis.client().xlen("tutti:{cas}:log").await.unwrap();
    assert_eq!(entries, 2, "what was refused or a duplicate left nothing");
}

/// The bytes that Lua writes and publishes are those that Rust writes.
#[tokio::test]
async fn lua_and_rust_write_the_same_bytes() {
    let redis = Redis::start().unwrap();
    let mut messages = redis.client().message_rx();
    redis.client().ssubscribe("tutti:{golden}").await.unwrap();
    let feed = feed(&redis, "golden", LIMITS);
    let mut prev_time_us = 0;
    for (n, payload) in [&b""[..], b"\x00\xff\r\n", &[7; 70_000]].into_iter().enumerate() {
        let n = n as i64;
        let payload = Bytes::from_static(payload);
        let append = Append { fresh: n == 0, payload: payload.clone(), ..from("a", n, n + 1) };
        let AppendOutcome::Appended(position) = feed.append(append).await.unwrap() else {
            panic!("not appended")
        };
        let expected = Record { position, prev_time_us, payload }.encode();
        let published: Bytes = messages.recv().await.unwrap().value.convert().unwrap();
        assert_eq!(published, expected);
        let id = format!("{}-{}", position.seq, position.time_us);
        let logged: Vec<(String, Vec<Bytes>)> =
            redis.client().xrange("tutti:{golden}:log", &id, &id, None).await.unwrap();
        assert_eq!(logged, [(id, vec![Bytes::from_static(b"r"), expected])]);
        prev_time_us = position.time_us;
    }
}

#[tokio::test]
async fn the_log_is_trimmed_by_age_by_length_and_by_bytes() {
    let redis = Redis::start().unwrap();
    let length =
        async |name: &str| redis.client().xlen::<u64, _>(format!("tutti:{{{name}}}:log")).await.unwrap();

    let by_age = feed(&redis, "age", LogLimits { max_age: Duration::from_millis(300), ..LIMITS });
    for at in 0..100 {
        append(&by_age, "a", at).await;
    }
    tokio::time::sleep(Duration::from_millis(400)).await; // what is to be old has to age
    for at in 100..192 {
        append(&by_age, "a", at).await;
    }
    let kept = length("age").await;
    assert!((1..=92).contains(&kept), "those before the pause are gone: {kept}");

    let by_length = feed(&redis, "length", LogLimits { max_entries: 1000, ..LIMITS });
    for at in 0..1500 {
        append(&by_length, "a", at).await;
    }
    let kept = length("length").await;
    assert!((1000..1300).contains(&kept), "{kept}");

    let by_bytes = feed(&redis, "bytes", LogLimits { max_bytes: 1 << 20, ..LIMITS });
    for at in 0..512 {
        let payload = Bytes::from(vec![0; 10_000]);
        by_bytes.append(Append { fresh: at == 0, payload, ..from("a", at, at + 1) }).await.unwrap();
    }
    let kept = length("bytes").await;
    assert!((50..=110).contains(&kept), "{kept}");
}

#[tokio::test]
async fn a_follower_hears_what_was_there_before_and_what_comes() {
    let redis = Redis::start().unwrap();
    let name = unique("feed");
    let feed = feed(&redis, &name, LIMITS);
    for at in 0..100 {
        append(&feed, "a", at).await;
    }
    let mut following = follow(&redis.url(), &[name], FollowMetrics::default()).unwrap();
    for at in 0..50 {
        assert_eq!(next_record(&mut following).await.payload, Bytes::from(format!("a:{at}-{}", at + 1)));
    }
    for at in 100..200 {
        append(&feed, "a", at).await;
    }
    for at in 50..200 {
        assert_eq!(next_record(&mut following).await.payload, Bytes::from(format!("a:{at}-{}", at + 1)));
    }
}

/// With Pub/Sub alone these records would be lost for good, without any sign.
#[tokio::test]
async fn a_last_message_that_was_never_published_is_found_by_its_head() {
    let redis = Redis::start().unwrap();
    let name = unique("feed");
    let feed = feed(&redis, &name, LIMITS);
    append(&feed, "a", 0).await;
    let metrics = FollowMetrics::default();
    let mut following = follow(&redis.url(), std::slice::from_ref(&name), metrics.clone()).unwrap();
    next_record(&mut following).await;
    // The first connection may count as one more refill, before the first poll.
    for _ in 0..3 {
        assert!(matches!(following.next().await.unwrap(), Event::Heads(_)));
    }
    let refills = metrics.refills.get();
    // The same record is written, but published to a channel that nobody hears.
    let log = format!("tutti:{{{name}}}:log");
    let head = format!("tutti:{{{name}}}:head");
    let script = concat!(
        include_str!("../../../feed/src/lua/record.lua"),
        include_str!("../../../feed/src/lua/append.lua")
    );
    let arguments: Vec<Value> = ["nobody", "a", "1", "2", "0", "7", "1000", "100000000", "100000000", "lost"]
        .into_iter()
        .map(Value::from)
        .collect();
    let () = redis.client().eval(script, vec![log, head], arguments).await.unwrap();
    assert_eq!(next_record(&mut following).await.payload, Bytes::from_static(b"lost"));
    assert_eq!((metrics.deaf.get(), metrics.refills.get()), (1, refills + 1));
}

#[tokio::test]
async fn a_redis_without_memory_takes_records_again_when_those_it_has_are_too_old() {
    let redis = Redis::start().unwrap();
    let feed = feed(&redis, "full", LogLimits { max_age: Duration::from_secs(2), ..LIMITS });
    let large = |at| Append { payload: Bytes::from(vec![7; 100_000]), ..from("a", at, at + 1) };
    append(&feed, "a", 0).await;
    for at in 1..40 {
        assert!(matches!(feed.append(large(at)).await, Ok(AppendOutcome::Appended(_))));
    }
    let memory: String = redis.command(&["INFO", "memory"]).await.unwrap();
    let used = memory.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    // The buffers that Redis frees meanwhile have less than that.
    let most = used.trim().parse::<u64>().unwrap() / 2;
    let _: String = redis.command(&["CONFIG", "SET", "maxmemory", &most.to_string()]).await.unwrap();
    // Either Redis refuses the record at first, or this machine is so slow that the others are already too old.
    let first = feed.append(large(40)).await;
    assert!(first.is_err() || redis_has(&redis, "full").await < 40, "{first:?}");
    eventually("it is taken", || async {
        matches!(
            feed.append(large(40)).await,
            Ok(AppendOutcome::Appended(_) | AppendOutcome::Duplicate { .. })
        )
    })
    .await;
    assert!(redis_has(&redis, "full").await < 40, "what is too old has gone");
}

/// Returns the number of entries in the log of a feed.
async fn redis_has(redis: &Redis, name: &str) -> u64 {
    redis.client().xlen(format!("tutti:{{{name}}}:log")).await.unwrap()
}

#[tokio::test]
async fn a_log_that_no_longer_reaches_back_is_a_reset_not_a_hole() {
    let redis = Redis::start().unwrap();
    let name = unique("feed");
    let feed = feed(&redis, &name, LIMITS);
    append(&feed, "a", 0).await;
    let metrics = FollowMetrics::default();
    let mut following = follow(&redis.url(), std::slice::from_ref(&name), metrics.clone()).unwrap();
    next_record(&mut following).await;
    // The follower is deaf, and meanwhile the log is trimmed.
    let _: i64 = redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await.unwrap();
    let script = "for i = 1, 10 do redis.call('XADD', KEYS[1], 'MAXLEN', '1', (i + 1) .. '-' .. (i + 1), 'r', ARGV[1]) end \
                  redis.call('HSET', KEYS[2], 'seq', '11', 'time_us', '11')";
    let record = Record {
        position: Position { epoch: 1, seq: 11, time_us: 11 },
        prev_time_us: 10,
        payload: Bytes::from_static(b"later"),
    };
    let epoch: u32 = redis.client().hget(format!("tutti:{{{name}}}:head"), "epoch").await.unwrap();
    let record = Record { position: Position { epoch, ..record.position }, ..record };
    let keys = vec![format!("tutti:{{{name}}}:log"), format!("tutti:{{{name}}}:head")];
    let () = redis.client().eval(script, keys, vec![Value::from(record.encode())]).await.unwrap();
    let reason = loop {
        match following.next().await.unwrap() {
            Event::Reset { reason, .. } => break reason,
            Event::Heads(_) | Event::HeldBack { .. } => {}
            Event::Record { record, .. } => panic!("{record:?}"),
        }
    };
    assert_eq!(reason.as_str(), "trimmed");
    assert_eq!(next_record(&mut following).await.payload, Bytes::from_static(b"later"));
    assert_eq!(metrics.resets.get(), 1);
}

/// While connections are killed at random moments, each record arrives once and in order.
#[tokio::test]
async fn a_follower_whose_connection_is_killed_again_and_again_misses_nothing() {
    let redis = Redis::start().unwrap();
    let name = unique("feed");
    let feed = feed(&redis, &name, LIMITS);
    let metrics = FollowMetrics::default();
    let mut following = follow(&redis.url(), std::slice::from_ref(&name), metrics.clone()).unwrap();
    let appending = async {
        for at in 0..5000 {
            append(&feed, "a", at).await;
            if at % 500 == 250 {
                let _: i64 = redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await.unwrap();
            }
        }
    };
    let hearing = async {
        for at in 0..5000 {
            let record = next_record(&mut following).await;
            assert_eq!(
                (record.position.seq, &record.payload[..]),
                (at + 1, format!("a:{at}-{}", at + 1).as_bytes())
            );
        }
    };
    tokio::join!(appending, hearing);
    eventually("the reconnects are counted", || async { metrics.reconnects.get() > 0 }).await;
}

#[tokio::test]
async fn a_log_of_small_records_and_then_large_ones_keeps_within_its_bytes() {
    let redis = Redis::start().unwrap();
    let limits = LogLimits { max_bytes: 8 << 20, ..LIMITS };
    let feed = feed(&redis, "large", limits);
    let mut at = 0;
    for payload in std::iter::repeat_n(Bytes::new(), 3000)
        .chain(std::iter::repeat_n(Bytes::from(vec![b'x'; 900_000]), 40))
    {
        let append = Append { source: "a", from: at, to: at + 1, fresh: at == 0, payload };
        assert!(matches!(feed.append(append).await.unwrap(), AppendOutcome::Appended(_)));
        at += 1;
        if at > 3000 {
            let bytes: u64 =
                redis.command(&["MEMORY", "USAGE", "tutti:{large}:log", "SAMPLES", "0"]).await.unwrap();
            assert!(bytes <= 8 << 20, "{bytes} bytes after {at} records");
        }
    }
    let entries: u64 = redis.command(&["XLEN", "tutti:{large}:log"]).await.unwrap();
    assert!(entries > 4, "{entries}: and no less than fits");
}

#[tokio::test]
async fn a_history_that_redis_has_lost_does_not_begin_with_where_its_source_stood_last() {
    let mut redis = Redis::start().unwrap();
    let history = OffsetHistory::new(redis.client().clone(), "cluster/topic/0");
    let stands = async || history.read(Duration::from_secs(30)).await.unwrap();
    assert!(!history.write(7).await.unwrap(), "it has not begun");
    assert_eq!(stands().await, None);
    history.begin(3).await.unwrap();
    assert!(history.write(7).await.unwrap());
    assert_eq!(stands().await, Some(Offsets { resume: 3, newest: 7 }));

    // An offset that is noted while Redis is away arrives in a Redis that came back empty.
    redis.kill();
    let noting = tokio::spawn({
        let history = history.clone();
        async move { history.write(9).await }
    });
    redis.run().unwrap();
    let noted = noting.await.unwrap();
    assert!(matches!(noted, Ok(false) | Err(_)), "{noted:?}");
    eventually("Redis answers", async || history.write(9).await.is_ok()).await;
    assert_eq!(stands().await, None, "all is filled again from where the route begins");
}
