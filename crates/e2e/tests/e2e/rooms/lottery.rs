//! The lottery that draws the places at an opening.

use reqwest::Method;
use serde_json::{Value, json};
use tutti_e2e::eventually;
use tutti_e2e::rooms::{Rooms, Stream, admin, position};
use tutti_e2e::testbed::Testbed;
use tutti_load::now_ms;
use tutti_model::lottery;

use super::{of_type, relayed_all};

#[tokio::test]
async fn the_early_get_their_places_by_the_published_permutation() {
    let rooms = Rooms::start(Testbed::new(1).await, 2, &[]).await;
    let (a, b) = (rooms.edge(&[]).await, rooms.edge(&[]).await);
    let opens_at = now_ms() + 600_000;
    let settings = json!({"maxActive": 1, "admitPerSecond": 1, "opensAt": opens_at}).to_string();
    let made = rooms.put(&a, "sale", &settings).await;
    assert_eq!((&made["opened"], &made["seed"]), (&json!(false), &Value::Null));
    let promised = made["settings"]["seedSha256"].as_str().unwrap().to_owned();
    // Other settings leave the opening time as it is.
    let changed = rooms.put(&b, "sale", r#"{"maxActive":1,"admitPerSecond":1}"#).await;
    assert_eq!(changed["settings"]["opensAt"], json!(opens_at));
    let moved = rooms.call(Method::PUT, &a, "/v1/rooms/none", Some(&admin()), r#"{"opensAt":1e3}"#).await;
    assert_eq!(moved.0, 400, "a time is a whole number of milliseconds");
    let (status, before) = rooms.call(Method::GET, &b, "/v1/rooms/sale/lottery", None, "").await;
    assert_eq!(
        (status.as_u16(), &before["seedSha256"], &before["seed"]),
        (200, &json!(promised), &Value::Null)
    );
    let mut all = Vec::new();
    for _ in 0..40 {
        all.push(rooms.join(&b, "sale").await);
    }
    assert_eq!(all[7].body["position"], Value::Null, "nobody has a place yet");
    let stream = Stream::open(&b, "sale", all[7].visitor()).await;
    eventually("so says the stream", || async {
        stream.heard().updates.first().is_some_and(|u| u.0.is_none())
    })
    .await;
    let left = &all[12];
    rooms.act(Method::DELETE, &a, "sale", left, "").await;

    // All of that may have taken long. Until the room has opened, the opening time can be changed.
    let settings = json!({"maxActive": 1, "admitPerSecond": 1, "opensAt": now_ms() + 1000}).to_string();
    rooms.put(&a, "sale", &settings).await;
    eventually("it opens", || async { rooms.room(&a, "sale").await["opened"] == true }).await;
    let late = rooms.join(&a, "sale").await;
    let (_, drawn) = rooms.call(Method::GET, &b, "/v1/rooms/sale/lottery", None, "").await;
    assert_eq!((&drawn["early"], &drawn["seedSha256"]), (&json!(40), &json!(promised)));
    let seed = drawn["seed"].as_str().unwrap();
    assert_eq!(sha256(seed), promised, "the seed is the one whose hash was published");
    // Anyone can compute the line from the seed.
    let mut line: Vec<(u64, u64)> = all
        .iter()
        .filter(|joined| joined.ticket != left.ticket)
        .map(|joined| (lottery::place_of(joined.ticket, 40, seed), joined.ticket))
        .collect();
    line.sort_unstable();
    let order: Vec<u64> = line.iter().map(|(_, ticket)| *ticket).chain([late.ticket]).collect();
    assert_ne!(order, (1..=41).filter(|n| *n != left.ticket).collect::<Vec<_>>(), "it is a lottery");
    let expected = order.iter().position(|ticket| *ticket == all[7].ticket).unwrap() as u64;
    eventually("the stream has a place, and the right one", || async {
        let heard = stream.heard();
        // Up to two visitors may have been admitted meanwhile.
        heard.pass.is_some() || position(&heard).is_some_and(|p| p <= expected + 1 && p + 3 > expected)
    })
    .await;
    rooms.put(&a, "sale", r#"{"maxActive":100,"admitPerSecond":1000}"#).await;
    eventually("all are in", || async { rooms.room(&a, "sale").await["figures"]["waiting"] == 0 }).await;
    let changes = relayed_all(&rooms, &a, "sale").await;
    let admitted: Vec<u64> =
        of_type(&changes, "admitted").iter().filter_map(|change| change["ticket"].as_u64()).collect();
    assert_eq!(admitted, order);
}

fn sha256(text: &str) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
