//! What arrives on Kafka, good and bad.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message as _;
use tokio::task::block_in_place;
use tutti_e2e::fixes::{fix, map_of_viewer};
use tutti_e2e::testbed::Testbed;
use tutti_e2e::viewer::Following;
use tutti_e2e::{eventually, until_there};
use tutti_kafka::tools::{Admin, read_topic};
use tutti_kafka::{ClientSettings, Producer, ProducerOptions, ProducerRecord};
use tutti_load::now_ms;
use tutti_model::Fix;

/// A record of `.rejected`: its headers, and the length of its value.
type Rejected = (BTreeMap<String, String>, Option<usize>);

/// Reads the topic of rejected values until it has `count` records.
async fn rejected(testbed: &Testbed, count: usize) -> Vec<Rejected> {
    let topic = format!("{}.rejected", testbed.topic);
    let read = || block_in_place(|| read_topic(testbed.brokers(), &topic, Duration::from_secs(10)));
    let records =
        until_there("all rejected values", async || read().ok().filter(|all| all.len() >= count)).await;
    let header = |(key, value): (String, Vec<u8>)| (key, String::from_utf8_lossy(&value).into_owned());
    records
        .into_iter()
        .map(|record| {
            (record.headers.into_iter().map(header).collect(), record.value.map(|value| value.len()))
        })
        .collect()
}

/// Makes a producer of values of any size.
fn producer(testbed: &Testbed) -> Producer {
    let properties = [("message.max.bytes".to_owned(), "4194304".to_owned())].into();
    let settings = ClientSettings { brokers: testbed.brokers().to_owned(), properties };
    let options = ProducerOptions {
        client_id: "tutti-e2e",
        delivery_timeout: Some(Duration::from_secs(30)),
        linger: Duration::ZERO,
    };
    Producer::start(&settings, &options).unwrap()
}

/// A value that must be rejected: the reason, the value, and its content type.
type Garbage = (&'static str, Vec<u8>, Option<&'static str>);

/// Returns values of every kind that must be rejected.
fn garbage(now: i64) -> Vec<Garbage> {
    let shape = |fields: &str| format!(r#"{{"mediaId":"x","timestamp":{now},{fields}}}"#).into_bytes();
    let whole =
        Fix { media_id: "x".into(), timestamp_ms: now, latitude: 1.0, ..Fix::default() }.encode_to_vec();
    vec![
        ("not_json", b"".to_vec(), None),
        ("not_json", b"no json".to_vec(), None),
        ("not_json", vec![0xff; 100], None),
        ("wrong_shape", vec![b'['; 100_000], None),
        ("not_json", vec![b'x'; 2 << 20], None),
        ("not_json", shape(r#""latitude":NaN,"longitude":0"#), None),
        ("wrong_shape", b"[]".to_vec(), None),
        ("wrong_shape", shape(r#""latitude":"1","longitude":0"#), None),
        ("wrong_shape", shape(r#""latitude":1"#), None),
        ("latitude", shape(r#""latitude":91,"longitude":0"#), None),
        ("longitude", shape(r#""latitude":0,"longitude":-181"#), None),
        ("no_media_id", br#"{"mediaId":"","timestamp":1,"latitude":0,"longitude":0}"#.to_vec(), None),
        (
            "properties",
            shape(&format!(r#""latitude":0,"longitude":0,"properties":{{"p":"{}"}}"#, "p".repeat(2000))),
            None,
        ),
        ("wrong_shape", format!(r#"["x",{now},0,0,null,null,null]"#).into_bytes(), None),
        ("wrong_shape", format!("[{}]", fix("x", now)).into_bytes(), None),
        ("wrong_shape", shape(r#""latitude":0,"longitude":0,"latitude":0"#), None),
        ("timestamp", fix("x", now / 1000).into_bytes(), None),
        (
            "timestamp",
            Fix { media_id: "x".into(), timestamp_ms: now / 1000, ..Fix::default() }.encode_to_vec(),
            Some("application/protobuf"),
        ),
        ("future", fix("x", now + 3_600_000).into_bytes(), None),
        ("timestamp", fix("x", now * 1000).into_bytes(), None),
        ("not_protobuf", whole[..whole.len() - 1].to_vec(), Some("application/protobuf")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_of_every_kind_is_set_aside_with_its_reason_and_the_flow_goes_on() {
    let testbed = Testbed::new(2).await;
    let (ingest, [edge]) = testbed.up([&[]]).await;
    let viewer = Following::start(&edge.stream()).await;
    let now = now_ms();
    let garbage = garbage(now);
    let producer = producer(&testbed);
    let send = async |key: &str, value: Option<&[u8]>, content_type: Option<&str>| {
        let header = content_type.map(|kind| ("content-type", kind));
        let record = ProducerRecord {
            topic: &testbed.topic,
            partition: Some(0),
            key: Some(key.as_bytes()),
            value,
            headers: header.as_slice(),
            ..ProducerRecord::default()
        };
        producer.send(&record).await.unwrap();
    };
    for (_, value, content_type) in &garbage {
        send("x", Some(value), *content_type).await;
    }
    send("stale", Some(fix("stale", now - 31_000).as_bytes()), None).await;
    send("gone", Some(fix("gone", now).as_bytes()), None).await;
    send(
        "7",
        Some(format!(r#"{{"mediaId":7,"timestamp":{now},"latitude":0,"longitude":0}}"#).as_bytes()),
        None,
    )
    .await;
    let good = Fix { media_id: "proto".into(), timestamp_ms: now, ..Fix::default() }.encode_to_vec();
    send("proto", Some(&good), Some("application/x-protobuf")).await;
    eventually("good ones arrive", || async {
        map_of_viewer(&viewer.viewer()).keys().map(String::as_str).eq(["7", "gone", "proto"])
    })
    .await;
    send("gone", None, None).await;
    eventually("a null value removes its device", || async {
        map_of_viewer(&viewer.viewer()).keys().map(String::as_str).eq(["7", "proto"])
    })
    .await;
    assert_eq!(viewer.viewer().removals, 1);

    let rejected = rejected(&testbed, garbage.len()).await;
    let mut reasons: Vec<&str> =
        rejected.iter().map(|(headers, _)| headers["tutti-reason"].as_str()).collect();
    let mut expected: Vec<&str> = garbage.iter().map(|(reason, ..)| *reason).collect();
    reasons.sort_unstable();
    expected.sort_unstable();
    assert_eq!(reasons, expected);
    for (headers, _) in &rejected {
        assert_eq!(headers["tutti-topic"], testbed.topic);
        assert_eq!(headers["tutti-partition"], "0");
        assert!(!headers["tutti-error"].is_empty());
        let offset: usize = headers["tutti-offset"].parse().unwrap();
        assert_eq!(headers["tutti-reason"], garbage[offset].0);
    }
    let cut = rejected.iter().find(|(headers, _)| headers["tutti-original-bytes"] == "2097152").unwrap();
    assert_eq!(cut.1, Some(65_536), "a huge value is cut");
    assert_eq!(ingest.metric("tutti_ingest_rejected_records_total").await, garbage.len() as f64);
    assert_eq!(ingest.metric("tutti_ingest_stale_records_total").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_is_shown_without_the_values_that_are_not_available() {
    let testbed = Testbed::new(1).await;
    let (ingest, [edge]) = testbed.up([&[]]).await;
    let publisher = testbed.publisher();
    let now = now_ms();
    let with = |id: &str, more: &str| {
        format!(r#"{{"mediaId":"{id}","timestamp":{now}.0,"latitude":1,"longitude":2,{more}}}"#)
    };
    for (id, value) in [
        ("ais", with("ais", r#""heading":511,"speed":1023"#)),
        ("ios", with("ios", r#""heading":-1,"speed":-1"#)),
        ("null", with("null", r#""heading":null,"speed":null,"properties":null"#)),
        ("marked", format!("\u{feff}{}", with("marked", r#""heading":7,"speed":3"#))),
    ] {
        publisher.send(id, Some(value.as_bytes())).await.unwrap();
    }
    eventually("all are shown", async || edge.map().await.len() == 4).await;
    let body = edge.locations().await.unwrap();
    for fix in body["locations"].as_array().unwrap() {
        let values = (fix["heading"].as_f64(), fix["speed"].as_f64());
        let expected = if fix["mediaId"] == "marked" { (Some(7.0), Some(3.0)) } else { (None, None) };
        assert_eq!(values, expected, "{fix}");
        assert_eq!(fix["timestamp"], now, "{fix}");
    }
    assert_eq!(ingest.metric("tutti_ingest_left_out_values_total").await, 4.0);
    assert_eq!(ingest.metric("tutti_ingest_rejected_records_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_kafka_timestamp_is_no_time_is_read_like_any_other() {
    let testbed = Testbed::new(1).await;
    let any = i64::MAX.to_string();
    let any_timestamp =
        [("message.timestamp.after.max.ms", any.as_str()), ("message.timestamp.before.max.ms", &any)];
    Admin::connect(testbed.brokers()).unwrap().configure_topic(&testbed.topic, &any_timestamp).await.unwrap();
    let (mut ingest, [edge]) = testbed.up([&[]]).await;
    let producer = producer(&testbed);
    let now = now_ms();
    for timestamp in [i64::MAX, 1, now / 1000, now] {
        let (id, payload) = (format!("at {timestamp}"), fix(&format!("at {timestamp}"), now));
        let record = ProducerRecord {
            topic: &testbed.topic,
            partition: Some(0),
            key: Some(id.as_bytes()),
            value: Some(payload.as_bytes()),
            timestamp_ms: Some(timestamp),
            headers: &[],
        };
        producer.send(&record).await.unwrap();
    }
    eventually("all are shown", async || edge.map().await.len() == 4).await;
    assert!(ingest.is_running(), "{}", ingest.log());
    assert_eq!(ingest.metric("tutti_ingest_delay_seconds_count").await, 1.0, "the age of the last is known");
    assert!(ingest.metric("tutti_ingest_delay_seconds_sum").await < 3600.0);
    ingest.kill();
}

#[tokio::test]
async fn a_device_that_falls_silent_leaves_the_map() {
    let testbed = Testbed::new(1).await.with("locations.stale_after_seconds", "10");
    let (_ingest, [edge]) = testbed.up([&[]]).await;
    let viewer = Following::start(&edge.stream()).await;
    let publisher = testbed.publisher();
    publisher.send("a", Some(fix("a", now_ms()).as_bytes())).await.unwrap();
    eventually("it is shown", || async { viewer.viewer().devices.contains_key("a") }).await;
    eventually("it leaves", || async { viewer.viewer().devices.is_empty() }).await;
    assert_eq!(viewer.viewer().removals, 1);
    assert!(edge.map().await.is_empty());
}
