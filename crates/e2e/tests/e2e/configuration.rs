//! Configuration, and dependencies that are not there yet.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use tutti::metrics::Families;
use tutti_e2e::fixes::fix;
use tutti_e2e::kafka::Kafka;
use tutti_e2e::service::program;
use tutti_e2e::testbed::Testbed;
use tutti_e2e::{eventually, free_port};
use tutti_load::now_ms;

fn run(name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(program(name)).args(arguments).envs(variables.iter().copied()).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn every_mistake_of_a_configuration_is_told_at_once() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[http]\nlisten = \"nowhere\"\n[mapp]\npublic = true\n").unwrap();
    let path = file.path().to_str().unwrap();
    let variables = [
        ("TUTTI_MAP_TICK_MS", "soon"),
        ("TUTTI_MAP_PUBLIC", "false"),
        ("TUTTI_STREAMS_MAX", "0"),
        ("TUTTI_HTTP_TRUSTED_PROXIES", "10.0.0.0/8,10.0.0.1,proxy"),
        ("TUTTI_LOG_FORMAT", "xml"),
        ("TUTTI_AUTH_HS256_SECRET", ""),
        ("TUTTI_AUTH_JWKS_FILE", "/nonexistent/jwks.json"),
        ("TUTTI_AUTH_JWKS_URL", "ldap://user:hush-hush@id.example/keys"),
        ("TUTTI_AUTH_JWKS_REFRESH_SECONDS", "9"),
    ];
    let (code, _, stderr) = run("tutti-edge", &["--config", path], &variables);
    assert_eq!(code, Some(64), "{stderr}");
    for mistake in [
        "http.listen",
        "mapp.public: no such setting; did you mean map.public?",
        "map.tick_ms",
        "streams.max",
        "http.trusted_proxies: \"proxy\" is neither an address nor a network",
        "log.format",
        "auth.jwks_file",
        "auth.jwks_url",
        "auth.jwks_refresh_seconds",
        "map.public = false needs keys",
    ] {
        assert!(stderr.contains(mistake), "{mistake} is missing: {stderr}");
    }
    assert!(!stderr.contains("hush"), "{stderr}");
    let ingest = [("TUTTI_ROUTES_LOCATIONS_FORMAT", "xml"), ("TUTTI_LOCATIONS_SHARDS", "0")];
    let (code, _, stderr) = run("tutti-ingest", &[], &ingest);
    assert_eq!(code, Some(64));
    assert!(stderr.contains("routes.locations.format") && stderr.contains("locations.shards"), "{stderr}");
    let (code, _, stderr) = run("tutti-ingest", &[], &[("TUTTI_INGEST_ROUTES", "locations,orders")]);
    assert_eq!(code, Some(64));
    assert!(stderr.contains("routes.orders has the topic and kind of routes.locations"), "{stderr}");
    assert_eq!(run("tutti-ingest", &["--nonsense"], &[]).0, Some(64));
}

#[tokio::test]
async fn what_is_wrong_with_redis_is_told_once_with_what_to_do_about_it() {
    let testbed = Testbed::new(1).await;
    let () = testbed
        .redis
        .command(&["ACL", "SETUSER", "tutti", "on", ">right", "~tutti:*", "+info"])
        .await
        .unwrap();
    let url = |user: &str, database: u32| {
        testbed.redis.url().replace("redis://", &format!("redis://{user}@")) + &format!("/{database}")
    };
    let cases = [
        (url("tutti:wrong", 0), "WRONGPASS", "%40"),
        (url("tutti:right", 0), "NOPERM", "ACL SETUSER"),
        (testbed.redis.url() + "/99", "DB index is out of range", "leave it out"),
    ];
    for (url, says, advice) in cases {
        let edge = testbed.edge(&[("redis.url", &url)]);
        let ingest = testbed.ingest(&[("redis.url", &url)]);
        for service in [&edge.service, &ingest] {
            eventually("it is told why it is not ready", async || {
                service
                    .ready()
                    .await
                    .is_some_and(|(status, why)| status == 503 && why.contains(says) && why.contains(advice))
            })
            .await;
            assert!(service.log().contains(advice), "{}", service.log());
            // Each connection logs it once.
            tokio::time::sleep(std::time::Duration::from_secs(2)).await; // so long the last one has
            let times = || service.log().matches(says).count();
            let before = times();
            tokio::time::sleep(std::time::Duration::from_secs(4)).await; // so long it goes on
            assert_eq!(times(), before, "it is said again and again: {}", service.log());
        }
    }
    let (code, _, stderr) =
        run("tutti-notify", &[], &[("TUTTI_REDIS_URL", "redis://tutti:p#w@127.0.0.1:6379")]);
    assert_eq!(code, Some(64), "{stderr}");
    assert!(stderr.contains("# as %23") && !stderr.contains("p#w"), "{stderr}");
}

#[test]
fn the_alert_rules_ask_for_metrics_that_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let rules = std::fs::read_to_string(root.join("deploy/prometheus/tutti.rules.yaml")).unwrap();
    let services = ["tutti-edge", "tutti-ingest", "tutti-notify", "tutti-queue"];
    let families = services.map(|service| Families::of(service).unwrap());
    let words = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let asked: BTreeSet<&str> = words.filter(|word| word.starts_with("tutti_")).collect();
    assert!(asked.len() > 15, "{asked:?}");
    for name in asked {
        assert!(families.iter().any(|families| families.has(name)), "no service has {name}");
    }
}

#[test]
fn check_config_shows_what_counts_and_no_secret() {
    let variables = [
        ("TUTTI_REDIS_URL", "redis://user:hush-hush@127.0.0.1:6379"),
        ("TUTTI_AUTH_HS256_SECRET", "hush-hush-hush-hush-hush-hush-hush"),
        ("TUTTI_AUTH_JWKS_URL", "https://user:hush@id.example/keys?key=hush"),
        ("TUTTI_MAP_TICK_MS", "100"),
        ("TUTTI_MAP_PUBLC", "false"),
    ];
    let (code, stdout, stderr) = run("tutti-edge", &["--check-config"], &variables);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("TUTTI_MAP_PUBLC sets nothing"), "{stderr}");
    assert!(stdout.contains("map.tick_ms = 100") && stdout.contains("TUTTI_MAP_TICK_MS"), "{stdout}");
    assert!(!stdout.contains("hush"), "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_disagree_on_what_defines_the_map_do_not_run() {
    let testbed = Testbed::new(1).await;
    let ingest = testbed.ingest(&[]);
    ingest.wait_ready().await;
    let url = testbed.redis.url();
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let admin = format!("127.0.0.1:{}", free_port());
    let variables = [
        ("TUTTI_REDIS_URL", url.as_str()),
        ("TUTTI_LOCATIONS_SHARDS", "5"),
        ("TUTTI_HTTP_LISTEN", &listen),
        ("TUTTI_ADMIN_LISTEN", &admin),
    ];
    let (code, _, stderr) = tokio::task::block_in_place(|| run("tutti-edge", &[], &variables));
    assert_eq!(code, Some(64), "{stderr}");
    assert!(stderr.contains("locations.shards is 5 here, but"), "{stderr}");
}

#[tokio::test]
async fn a_kafka_and_a_redis_that_are_not_there_yet_are_waited_for() {
    let kafka = Kafka::start().unwrap();
    let mut testbed = Testbed::on(&kafka, 1).await;
    testbed.redis.kill();
    kafka.kill();
    let ingest = testbed.ingest(&[]);
    let edge = testbed.edge(&[]);
    let waits_for = async |service: &tutti_e2e::service::Service, what: &str| {
        eventually(what, || async {
            service.ready().await.is_some_and(|(status, why)| status == 503 && why.contains(what))
        })
        .await;
    };
    waits_for(&ingest, "redis").await;
    waits_for(&edge.service, "the live map").await;
    assert!(ingest.is_running() && edge.service.is_running());
    let locations = reqwest::get(format!("{}/v1/map/locations", edge.url)).await.unwrap();
    assert_eq!(locations.status(), 503);
    assert!(locations.headers().contains_key("retry-after"));

    testbed.redis.run().unwrap();
    edge.service.wait_ready().await;
    waits_for(&ingest, "kafka").await;
    kafka.run().unwrap();
    ingest.wait_ready().await;
    let publisher = testbed.publisher();
    publisher.send("a", Some(fix("a", now_ms()).as_bytes())).await.unwrap();
    eventually("the fix arrives", || async { edge.map().await.contains_key("a") }).await;
}
