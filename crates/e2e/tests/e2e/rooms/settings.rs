//! How an administrator sets a room: as a whole, or in part.

use reqwest::Method;
use serde_json::{Value, json};
use tutti_e2e::rooms::{Rooms, admin};
use tutti_e2e::testbed::Testbed;
use tutti_load::now_ms;

#[tokio::test]
async fn a_request_without_a_whole_body_leaves_a_room_as_it_is() {
    let rooms = Rooms::start(Testbed::new(1).await, 1, &[]).await;
    let edge = rooms.edge(&[]).await;
    let seconds = now_ms() / 1000;
    let made = rooms.put(&edge, "sale", r#"{"maxActive":7,"claimSeconds":33,"graceSeconds":null}"#).await;
    assert_eq!(made["settings"]["graceSeconds"], 120, "null is the default");
    for (bad, says) in [
        ("".to_owned(), "the body is missing"),
        ("[7]".to_owned(), "must be one object, is an array"),
        (r#"{"maxActive":"9"}"#.to_owned(), "`maxActive` must be an integer from 0 up, is a string"),
        (r#"{"maxActive":9,"maxActive":9}"#.to_owned(), "`maxActive` stands twice"),
        (r#"{"maxActive":9.5}"#.to_owned(), "`maxActive` must be an integer from 0 up, is 9.5"),
        (r#"{"maxactive":9}"#.to_owned(), "there is no field `maxactive`"),
        (format!(r#"{{"maxActive":9,"opensAt":{seconds}}}"#), "milliseconds since 1970 are needed"),
    ] {
        for method in [Method::PUT, Method::PATCH] {
            let (status, body) =
                rooms.call(method.clone(), &edge, "/v1/rooms/sale", Some(&admin()), &bad).await;
            assert_eq!(status, 400, "{method} {bad}: {body}");
            assert!(body["detail"].as_str().unwrap().contains(says), "{method} {bad}: {body}");
        }
    }
    let kept = rooms.room(&edge, "sale").await;
    assert_eq!((&kept["settings"], &kept["version"]), (&made["settings"], &made["version"]));
    let again = rooms.put(&edge, "sale", "{}").await;
    assert_eq!(again["settings"]["maxActive"], 100, "who wants the defaults says so");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_two_administrators_change_at_once_are_all_changed() {
    let rooms = Rooms::start(Testbed::new(1).await, 2, &[]).await;
    let (a, b) = (rooms.edge(&[]).await, rooms.edge(&[]).await);
    let opens_at = now_ms() + 600_000;
    let missing = rooms.call(Method::PATCH, &a, "/v1/rooms/sale", Some(&admin()), "{}").await;
    assert_eq!((missing.0.as_u16(), &missing.1["reason"]), (404, &json!("no_room")));
    let made = json!({"maxActive": 5, "admitPerSecond": 0.25, "opensAt": opens_at}).to_string();
    rooms.put(&a, "sale", &made).await;
    let patch = async |edge, body: Value| {
        rooms.insist(Method::PATCH, edge, "/v1/rooms/sale", &admin(), &body.to_string()).await
    };
    for n in 1..=30 {
        tokio::join!(
            patch(&a, json!({"claimSeconds": n})),
            patch(&b, json!({"graceSeconds": 1000 + n})),
            patch(&a, json!({"sessionSeconds": 2000.0 + f64::from(n)})),
        );
        let settings = &rooms.room(&b, "sale").await["settings"];
        assert_eq!(settings["claimSeconds"], n, "{settings}");
        assert_eq!(settings["graceSeconds"], 1000 + n, "{settings}");
        assert_eq!(settings["sessionSeconds"], 2000 + n, "{settings}");
    }
    let patched = patch(&b, json!({"maxActive": null, "passSeconds": 30})).await;
    let settings = &patched["settings"];
    assert_eq!(settings["maxActive"], 100, "null is back to the default");
    assert_eq!(settings["passSeconds"], 30);
    assert_eq!(settings["admitPerSecond"], 0.25, "what is not named stays");
    assert_eq!(settings["opensAt"], opens_at);
    assert_eq!(patched["opened"], false);
    // Edges, which follow the feed, and Kafka receive the settings as a whole.
    rooms.until_relayed(&a, "sale").await;
    let changes = rooms.relayed("sale");
    let last = changes.iter().rfind(|change| change["type"] == "settings").unwrap();
    assert_eq!(&last["settings"], settings);
}
