//! What each device of a user gets.

use reqwest::Method;
use serde_json::{Value, json};
use tutti_e2e::eventually;
use tutti_e2e::inboxes::{Device, token};

use super::{has, is_live, send, up, urls};

#[tokio::test(flavor = "multi_thread")]
async fn all_ten_devices_of_a_user_get_any_text_as_it_was_sent_and_nobody_else_does() {
    let (inboxes, _ingest, edges) = up::<2>().await;
    let all = urls(&edges);
    let devices: Vec<Device> =
        (0..10).map(|n| Device::new(&all[n % 2..=n % 2], "7", &format!("?device=d-{n}"))).collect();
    let other = Device::new(&all[..1], "77", "");
    for device in devices.iter().chain([&other]) {
        is_live(device).await;
    }
    let text = "a|b\n\r\n\0 <\u{1f600}> {\"}\\ \u{2028} end";
    let sent = json!({
        "to": { "users": ["7", "8"] },
        "category": "order|x",
        "title": text,
        "body": text,
        "data": { "n": 1, "deep": [text, { "k|\n": null }] },
        "ttlSeconds": 3600,
    });
    let id = send(&inboxes, &edges[0], "first", sent.clone()).await;
    for (n, device) in devices.iter().enumerate() {
        has(device, 1).await;
        let seen = device.seen();
        assert_eq!(seen.connected, [json!({ "device": format!("d-{n}"), "unread": 0 })]);
        assert_eq!((seen.ids.as_slice(), seen.unread), ([id.clone()].as_slice(), Some(1)));
        let got = &seen.data[&id];
        for field in ["category", "title", "body", "data"] {
            assert_eq!(got[field], sent[field]);
        }
        let lives = got["expiresAt"].as_i64().unwrap() - got["createdAt"].as_i64().unwrap();
        assert_eq!(lives, 3_600_000);
    }
    let again = send(&inboxes, &edges[1], "first", sent).await;
    assert_eq!(again, id, "the same key is the same notification");
    let second = send(&inboxes, &edges[1], "second", json!({"to": {"users": ["7"]}, "title": "2"})).await;
    for device in &devices {
        has(device, 2).await;
        assert_eq!(device.seen().ids, [id.clone(), second.clone()]);
    }
    assert_eq!(inboxes.ids(&edges[0], "7").await, [second, id.clone()]);
    assert_eq!(inboxes.ids(&edges[1], "8").await, [id]);
    assert_eq!(other.seen().ids, Vec::<String>::new());
    assert_eq!(inboxes.ids(&edges[1], "77").await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_device_reads_or_deletes_the_others_hear_and_so_do_those_that_were_away() {
    let (inboxes, _ingest, edges) = up::<2>().await;
    let all = urls(&edges);
    let (here, away) = (Device::new(&all[1..], "7", ""), Device::new(&all[..1], "7", ""));
    is_live(&here).await;
    is_live(&away).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let key = format!("n-{n}");
        ids.push(send(&inboxes, &edges[0], &key, json!({"to": {"users": ["7"]}, "title": key})).await);
    }
    has(&here, 5).await;
    has(&away, 5).await;
    let seen = away.leave();
    let call = |method: Method, path: String, body: &'static str| {
        let (inboxes, edge) = (&inboxes, &edges[0]);
        async move { inboxes.call(method, edge, &path, &token("7"), body).await }
    };
    let read = call(Method::POST, format!("/v1/inbox/{}/read", ids[3]), "").await;
    assert_eq!((read.status.as_u16(), read.body["unread"].as_u64()), (200, Some(4)));
    let again = call(Method::POST, format!("/v1/inbox/{}/read", ids[3]), "").await;
    assert_eq!(again.body["unread"], 4, "once is enough");
    let body: &'static str = Box::leak(json!({ "upTo": ids[1] }).to_string().into_boxed_str());
    let read_to = call(Method::POST, "/v1/inbox/read".into(), body).await;
    assert_eq!(read_to.body["unread"], 2);
    let deleted = call(Method::DELETE, format!("/v1/inbox/{}", ids[4]), "").await;
    assert_eq!((deleted.status.as_u16(), deleted.body["unread"].as_u64()), (200, Some(1)));
    let gone = call(Method::DELETE, format!("/v1/inbox/{}", ids[4]), "").await;
    assert_eq!((gone.status.as_u16(), gone.body["unread"].as_u64()), (200, Some(1)), "once is enough");
    assert_eq!(call(Method::POST, format!("/v1/inbox/{}/read", ids[4]), "").await.status, 404);
    assert_eq!(call(Method::POST, "/v1/inbox/a%20b/read".into(), "").await.status, 400);
    for bad in ["[]", r#"["n-1"]"#, "{}", r#"{"upTo":null}"#, r#"{"upTo":7}"#, r#"{"upTo":"a","upTo":"a"}"#] {
        let answer = call(Method::POST, "/v1/inbox/read".into(), bad).await;
        assert_eq!(answer.status, 400, "{bad}");
        assert!(answer.body["detail"].as_str().unwrap().contains("upTo"), "{bad}: {}", answer.body);
    }

    eventually("the other device hears it", || async { here.look(|seen| !seen.deleted.is_empty()) }).await;
    let back = Device::start(&reqwest::Client::new(), &all[1..], "7", "", seen);
    eventually("who was away hears it", || async { back.look(|seen| !seen.deleted.is_empty()) }).await;
    for device in [&here, &back] {
        let seen = device.seen();
        let read: Vec<String> = seen.read.iter().cloned().collect();
        let mut expected = vec![ids[0].clone(), ids[1].clone(), ids[3].clone()];
        expected.sort();
        assert_eq!((read, seen.unread), (expected, Some(1)));
        assert_eq!(seen.deleted.iter().collect::<Vec<_>>(), [&ids[4]]);
        assert_eq!((seen.ids.len(), seen.twice.len(), seen.resets.len()), (5, 0, 0));
    }

    let list = inboxes.list(&edges[1], "7", "?limit=2").await;
    let listed = |list: &Value| -> Vec<(String, bool)> {
        let all = list["notifications"].as_array().unwrap().iter();
        all.map(|one| (one["id"].as_str().unwrap().to_owned(), one["read"] == true)).collect()
    };
    assert_eq!(listed(&list), [(ids[3].clone(), true), (ids[2].clone(), false)]);
    assert_eq!(list["unread"], 1);
    let next = inboxes.list(&edges[1], "7", &format!("?before={}", list["next"].as_str().unwrap())).await;
    assert_eq!(listed(&next), [(ids[1].clone(), true), (ids[0].clone(), true)]);
    let rest = inboxes.list(&edges[1], "7", &format!("?limit=5&before={}", ids[2])).await;
    assert_eq!(listed(&rest), [(ids[1].clone(), true), (ids[0].clone(), true)]);
    assert_eq!(rest["next"], Value::Null);
    assert_eq!(listed(&inboxes.list(&edges[0], "7", "?unread=true").await), [(ids[2].clone(), false)]);
    for bad in ["?limit=0", "?limit=x", "?unread=7"] {
        let answer = inboxes.call(Method::GET, &edges[0], &format!("/v1/inbox{bad}"), &token("7"), "").await;
        assert_eq!(answer.status, 400, "{bad}");
    }
    // A page first lists the inbox, and then follows the stream from there.
    let cursor = list["cursor"].as_str().unwrap();
    let since = Device::new(&all[..1], "7", &format!("?since={cursor}"));
    is_live(&since).await;
    let next = send(&inboxes, &edges[1], "next", json!({"to": {"users": ["7"]}, "title": "next"})).await;
    has(&since, 1).await;
    assert_eq!(since.seen().ids, [next]);
}
