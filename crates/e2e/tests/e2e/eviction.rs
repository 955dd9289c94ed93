//! A Redis that evicts. Services refuse to start with it; where a setting lets them, they report that something is
//! missing.

use std::process::Command;
use std::time::Duration;

use fred::prelude::*;
use serde_json::json;
use tutti_e2e::eventually;
use tutti_e2e::inboxes::{Device, Inboxes};
use tutti_e2e::kafka;
use tutti_e2e::redis::Redis;
use tutti_e2e::rooms::Rooms;
use tutti_e2e::service::program;
use tutti_e2e::testbed::Testbed;
use tutti_feed::{MailboxLimits, MailboxMetrics, Mailboxes, Since, announce_new_evictions};

#[tokio::test(flavor = "multi_thread")]
async fn no_service_starts_on_a_redis_that_may_evict_unless_that_is_allowed() {
    let testbed = Testbed::new(1).await;
    let () = testbed.redis.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await.unwrap();
    let () = testbed.redis.command(&["CONFIG", "SET", "maxmemory", "1gb"]).await.unwrap();
    let key = testbed.folder().join("pass-key.pem");
    std::fs::write(&key, tutti::passes::new_key()).unwrap();
    for name in ["tutti-ingest", "tutti-edge", "tutti-queue", "tutti-notify"] {
        let mut command = Command::new(program(name));
        command.env("TUTTI_REDIS_URL", testbed.redis.url()).env("TUTTI_KAFKA_BROKERS", testbed.brokers());
        command.env("TUTTI_PASSES_KEY_FILE", &key);
        for listen in ["HTTP", "GRPC", "ADMIN"] {
            let port = tutti_e2e::free_port();
            command.env(format!("TUTTI_{listen}_LISTEN"), format!("127.0.0.1:{port}"));
        }
        let ended = tokio::task::block_in_place(|| command.output()).unwrap();
        let log = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(64), "{name}: {log}");
        for word in [
            "allkeys-lru",
            "CONFIG SET maxmemory-policy noeviction",
            "redis.allow_eviction",
            "parameter group",
        ] {
            assert!(log.contains(word), "{name} does not say {word}: {log}");
        }
    }
    let testbed = testbed.with("redis.allow_eviction", "true");
    let (ingest, [edge]) = testbed.up([&[]]).await;
    for service in [&ingest, &edge.service] {
        eventually("it is in the metrics", async || service.metric("tutti_redis_evicts").await == 1.0).await;
        assert!(service.log().contains("Redis may evict"), "{}", service.log());
    }
}

#[tokio::test]
async fn a_redis_that_comes_to_evict_is_told_of_once_and_ends_nothing() {
    let mut rooms = Rooms::start(Testbed::new(1).await, 1, &[]).await;
    let edge = rooms.edge(&[]).await;
    rooms.put(&edge, "sale", "{}").await;
    let services = [&edge.service, &rooms.queues[0]];
    for service in services {
        assert_eq!(service.metric("tutti_redis_evicts").await, 0.0);
    }
    let () = rooms.testbed.redis.command(&["CONFIG", "SET", "maxmemory", "1gb"]).await.unwrap();
    let () =
        rooms.testbed.redis.command(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]).await.unwrap();
    let cut_off = async || {
        let _: i64 = rooms
            .testbed
            .redis
            .command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
            .await
            .unwrap();
    };
    for service in services {
        eventually("it is seen at the next connection", async || {
            cut_off().await;
            service.metric("tutti_redis_evicts").await == 1.0
        })
        .await;
    }
    cut_off().await;
    let () = rooms.testbed.redis.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await.unwrap();
    for service in services {
        eventually("it is seen that it does not any more", async || {
            cut_off().await;
            service.metric("tutti_redis_evicts").await == 0.0
        })
        .await;
        assert_eq!(service.log().matches("Redis may evict").count(), 1, "{}", service.log());
        assert!(service.is_running() && service.ready().await.unwrap().0 == 200);
    }
    rooms.testbed.redis.kill();
    rooms.testbed.redis.run().unwrap();
    rooms.put(&edge, "sale", "{}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_hear_that_redis_has_evicted_something_and_that_it_has_not() {
    let inboxes = Inboxes::start(kafka::shared(), 1).await;
    let (ingest, edge) = (inboxes.ingest(), inboxes.edge(&[]).await);
    ingest.wait_ready().await;
    let urls = [edge.url.clone()];
    let device = Device::new(&urls, "7", "");
    let body = json!({ "to": { "users": ["7"] }, "title": "hello" });
    inboxes.send_until_accepted(&urls, "key", &body).await;
    eventually("it has come", async || device.look(|seen| seen.ids.len() == 1)).await;
    let redis = &inboxes.testbed.redis;
    let mailboxes = inboxes.mailboxes();
    announce_new_evictions(redis.client(), &mailboxes).await.unwrap();
    assert_eq!(inboxes.list(&edge, "7", "").await["lostAt"], json!(null));
    assert_eq!(device.look(|seen| seen.resets.len()), 0, "nothing was evicted");

    // Everything that can be evicted is evicted, as by a Redis whose memory is full.
    let () = redis.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]).await.unwrap();
    let () = redis.command(&["CONFIG", "SET", "maxmemory", "1"]).await.unwrap();
    eventually("all is evicted", async || {
        let _: Result<String, _> = redis.command(&["SET", "filler", "x"]).await;
        redis.command::<u64>(&["DBSIZE"]).await.unwrap() == 0
    })
    .await;
    let () = redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await.unwrap();
    announce_new_evictions(redis.client(), &mailboxes).await.unwrap();
    eventually("the device is told", async || device.look(|seen| !seen.resets.is_empty())).await;
    let listed = inboxes.list(&edge, "7", "").await;
    assert!(listed["lostAt"].is_u64(), "no list is empty without a word: {listed}");

    let told = mailboxes.read("user:8", Since::Now).await.unwrap().position;
    announce_new_evictions(redis.client(), &mailboxes).await.unwrap();
    let again = mailboxes.read("user:8", Since::Now).await.unwrap().position;
    assert_eq!(told, again, "each eviction is told once");
}

#[tokio::test]
async fn without_a_limit_on_its_memory_no_redis_evicts() {
    let testbed = Testbed::new(1).await;
    let () = testbed.redis.command(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]).await.unwrap();
    let (ingest, [edge]) = testbed.up([&[]]).await;
    for service in [&ingest, &edge.service] {
        assert_eq!(service.metric("tutti_redis_evicts").await, 0.0);
    }
}

#[tokio::test]
async fn evictions_that_go_on_are_told_once_an_hour_by_one_and_also_after_their_count_was_reset() {
    let redis = Redis::start().unwrap();
    let keep = MailboxLimits { items: 9, bytes: 1 << 20, age: Duration::from_secs(3600) };
    let boxes = Mailboxes::new(redis.client().clone(), "boxes", 1, keep, MailboxMetrics::default());
    let () = redis.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]).await.unwrap();
    let () = redis.command(&["SET", "filler", "x"]).await.unwrap();
    let () = redis.command(&["CONFIG", "SET", "maxmemory", "1"]).await.unwrap();
    eventually("it is evicted", async || {
        let _: Result<String, _> = redis.command(&["SET", "more", "x"]).await;
        !redis.command::<String>(&["INFO", "stats"]).await.unwrap().contains("evicted_keys:0")
    })
    .await;
    let () = redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await.unwrap();
    let info: String = redis.command(&["INFO", "server"]).await.unwrap();
    let node = info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap().trim();
    let tell = async || announce_new_evictions(redis.client(), &boxes).await.unwrap();
    let told = async || boxes.read("user:8", Since::Now).await.unwrap().position.map_or(0, |place| place.seq);
    let set = async |field: &str, value: u64| {
        let () = redis.client().hset("tutti:evicted", (field, value)).await.unwrap();
    };
    let until = format!("{node}:until");

    tokio::join!(tell(), tell());
    assert_eq!(told().await, 1, "one of two tells");
    // The count says that more was evicted since.
    set(node, 0).await;
    tell().await;
    assert_eq!(told().await, 1, "not before an hour is over");
    set(&until, 1).await;
    tokio::join!(tell(), tell());
    assert_eq!(told().await, 2);
    set(&until, 1).await;
    tell().await;
    assert_eq!(told().await, 2, "nothing was evicted since");
    // The count says that many more were evicted before somebody reset it.
    set(node, 1_000_000).await;
    tell().await;
    assert_eq!(told().await, 3);
    let () = redis.command(&["CONFIG", "RESETSTAT"]).await.unwrap();
    set(&until, 1).await;
    tell().await;
    assert_eq!(told().await, 3);
    assert_eq!(redis.client().hget::<u64, _, _>("tutti:evicted", node).await.unwrap(), 0);
}
