//! Senders ask which users are online.

use std::time::Duration;

use reqwest::Method;
use tutti_e2e::eventually;
use tutti_e2e::inboxes::{Device, sender};

use super::{is_live, up};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_is_gone_from_the_registry_and_its_devices_too() {
    let (inboxes, _ingest, [mut a, b]) = up::<2>().await;
    let phone = Device::new(std::slice::from_ref(&a.url), "7", "?device=phone");
    let laptop = Device::new(std::slice::from_ref(&b.url), "7", "?device=laptop");
    is_live(&phone).await;
    is_live(&laptop).await;
    let devices = async || {
        let answer = inboxes.call(Method::GET, &b, "/v1/presence/7", &sender(), "").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let all = answer.body["devices"].as_array().unwrap().clone();
        assert_eq!(answer.body["online"], !all.is_empty());
        let mut all: Vec<String> = all.iter().map(|one| one["device"].as_str().unwrap().to_owned()).collect();
        all.sort();
        all
    };
    eventually("both are listed", || async { devices().await == ["laptop", "phone"] }).await;
    a.service.kill();
    let killed = std::time::Instant::now();
    eventually("the killed one is gone", || async { devices().await == ["laptop"] }).await;
    assert!(killed.elapsed() < Duration::from_secs(30), "within the time that was promised");
    drop(laptop);
    eventually("and the one that left", || async { devices().await.is_empty() }).await;
}
