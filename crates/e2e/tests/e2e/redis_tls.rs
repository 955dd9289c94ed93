//! A Redis that requires TLS, and a Redis user with few rights.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tutti_e2e::fixes::Input;
use tutti_e2e::inboxes::{Device, Inboxes, sender, token};
use tutti_e2e::redis::Redis;
use tutti_e2e::rooms::Rooms;
use tutti_e2e::testbed::Testbed;
use tutti_e2e::{eventually, free_port, kafka};

/// The rights that docs/operations/redis.md says a Redis user needs.
const RIGHTS: &str = "~tutti:* &tutti:* +@all -@dangerous +info +role";

/// Makes a self-signed certificate of `localhost`. Returns the paths of the certificate and of its key.
fn certificate(folder: &Path) -> [String; 2] {
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (certificate, key) = (file("redis.crt"), file("redis.key"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-keyout", &key, "-out", &certificate])
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    [certificate, key]
}

/// Starts a testbed on a Redis with TLS. The services trust its certificate if `trusted`.
async fn testbed(trusted: bool) -> Testbed {
    let mut testbed = Testbed::new(3).await.with("locations.stale_after_seconds", "600");
    let [certificate, key] = certificate(testbed.folder());
    let port = free_port();
    let port_text = port.to_string();
    let tls = ["--tls-port", &port_text, "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let user = format!("tutti on >secret {RIGHTS}");
    let user: Vec<&str> = user.split(' ').collect();
    let options = [&tls[..], &["--tls-auth-clients", "no", "--user"], &user].concat();
    testbed.redis = Redis::start_with(&options).expect("Redis starts");
    if trusted {
        testbed.settings.insert("SSL_CERT_FILE".into(), certificate);
    }
    testbed.with("redis.url", &format!("rediss://tutti:secret@localhost:{port}/"))
}

#[tokio::test(flavor = "multi_thread")]
async fn map_and_inboxes_live_in_a_redis_with_tls_and_a_user_of_few_rights() {
    let inboxes = Inboxes::with(kafka::shared(), testbed(true).await, 1).await;
    let (carries, ingest) = (inboxes.ingest(), inboxes.testbed.ingest(&[]));
    let edge = inboxes.edge(&[]).await;
    carries.wait_ready().await;
    ingest.wait_ready().await;
    let (publisher, mut input) = (inboxes.testbed.publisher(), Input::new(50));
    // The input lasts long enough for work that is done now and then, such as asking for the size of a log.
    input.send_for(&publisher, Duration::from_secs(5), 200).await;
    publisher.flush(Duration::from_secs(30)).await.unwrap();
    eventually("the map is there", async || edge.map().await == input.expected).await;
    assert_eq!(ingest.metric("tutti_ingest_append_errors_total").await, 0.0);
    let device = Device::new(std::slice::from_ref(&edge.url), "7", "");
    let body = json!({ "to": { "users": ["7"] }, "title": "hello" });
    let id = inboxes.send_until_accepted(std::slice::from_ref(&edge.url), "a", &body).await;
    eventually("the device hears of it", async || device.look(|seen| seen.ids.contains(&id))).await;
    let read = inboxes.call(Method::POST, &edge, &format!("/v1/inbox/{id}/read"), &token("7"), "").await;
    assert_eq!(read.status, 200);
    eventually("she is present", async || {
        let answer = inboxes.call(Method::GET, &edge, "/v1/presence/7", &sender(), "").await;
        answer.body["devices"].as_array().is_some_and(|devices| devices.len() == 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_lives_in_a_redis_with_tls_and_a_user_of_few_rights() {
    let rooms = Rooms::start(testbed(true).await, 1, &[]).await;
    let edge = rooms.edge(&[]).await;
    rooms.one_waits(&edge, "sale").await;
}

#[tokio::test]
async fn a_redis_that_nobody_vouches_for_is_not_talked_to() {
    let testbed = testbed(false).await;
    let edge = testbed.edge(&[]);
    eventually("the edge says why", async || edge.service.log().contains("certificate verify failed")).await;
}
