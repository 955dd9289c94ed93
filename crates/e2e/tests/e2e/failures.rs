//! What strangers see when a service fails, and what its log has.

use fred::prelude::*;
use reqwest::Method;
use serde_json::{Value, json};
use tutti_e2e::eventually;
use tutti_e2e::inboxes::{Inboxes, token};
use tutti_e2e::kafka;
use tutti_e2e::rooms::{Rooms, Stream, admin};
use tutti_e2e::service::Service;
use tutti_e2e::testbed::{Edge, Testbed};

/// Changes the record of a room in Redis with Lua, in which the record is called `r`. Returns the seed of the room.
async fn change_record(rooms: &Rooms, room: &str, change: &str) -> String {
    let script = format!(
        "local r = cmsgpack.unpack(redis.call('HGET', KEYS[1], 'room')); {change}; \
         redis.call('HSET', KEYS[1], 'room', cmsgpack.pack(r)); return r.seed"
    );
    let head = format!("tutti:{{room.{room}}}:head");
    rooms.testbed.redis.client().eval(script, head, Vec::<String>::new()).await.unwrap()
}

/// Checks that the request id of a problem is in the log of one of these services.
fn is_in_the_log(problem: &Value, services: &[&Service]) {
    let id = problem["requestId"].as_str().unwrap_or_else(|| panic!("no request id: {problem}"));
    let logs: String = services.iter().map(|service| service.log()).collect();
    assert!(logs.lines().any(|line| line.contains(id)), "{id} is not in the log: {logs}");
}

/// Checks that a problem names no script, no address and no text of a driver.
fn tells_nothing_of_the_inside(problem: &Value) {
    let text = problem.to_string().to_lowercase();
    for word in ["script", "redis", "tcp", "127.0.0.1", "grpc", "column", "transport"] {
        assert!(!text.contains(word), "{word}: {problem}");
    }
}

async fn get(rooms: &Rooms, edge: &Edge, path: &str) -> (u16, Value) {
    let (status, body) = rooms.call(Method::GET, edge, path, Some(&admin()), "").await;
    (status.as_u16(), body)
}

#[tokio::test]
async fn a_room_that_cannot_be_read_shows_its_seed_to_nobody_and_hides_no_other() {
    let mut rooms = Rooms::start(Testbed::new(1).await, 1, &[]).await;
    let edge = rooms.edge(&[]).await;
    rooms.put(&edge, "fair", "{}").await;
    rooms.put(&edge, "sale", r#"{"opensAt":32503680000000}"#).await;
    let before = get(&rooms, &edge, "/v1/rooms/sale").await;
    // A later version may have fields that this one does not know, and an earlier one may lack some.
    change_record(&rooms, "sale", "r.later = {1, 'x'}; r.no_shows = nil; r.seed_sha256 = nil").await;
    let (status, after) = get(&rooms, &edge, "/v1/rooms/sale").await;
    assert_eq!((status, &after["settings"]["maxActive"]), (200, &before.1["settings"]["maxActive"]));

    for change in ["r.pass = {r.seed}", "r.pass = r.seed"] {
        let seed = change_record(&rooms, "sale", change).await;
        assert!(seed.len() >= 32, "{seed}");
        let (status, problem) = rooms.call(Method::GET, &edge, "/v1/rooms/sale/lottery", None, "").await;
        assert_eq!((status.as_u16(), &problem["reason"]), (500, &json!("internal")), "{problem}");
        tells_nothing_of_the_inside(&problem);
        is_in_the_log(&problem, &[&rooms.queues[0]]);
        assert!(!problem.to_string().contains(&seed), "{problem}");

        let (status, list) = get(&rooms, &edge, "/v1/rooms").await;
        assert_eq!((status, &list["unreadable"]), (200, &json!(["sale"])), "{list}");
        let names: Vec<&Value> = list["rooms"].as_array().unwrap().iter().map(|room| &room["room"]).collect();
        assert_eq!(names, ["fair"]);
        for log in [rooms.queues[0].log(), edge.service.log()] {
            assert!(!log.contains(&seed), "{log}");
        }
    }
    let () = rooms.testbed.redis.client().hset("tutti:{room.sale}:head", ("room", "garbage")).await.unwrap();
    let (status, problem) = get(&rooms, &edge, "/v1/rooms/sale").await;
    assert_eq!(status, 500, "a script that fails will fail again: {problem}");
    is_in_the_log(&problem, &[&rooms.queues[0]]);
    assert_eq!(get(&rooms, &edge, "/v1/rooms").await.1["unreadable"], json!(["sale"]));

    // The visitor must not hear that the ticket is forgotten, because a later version may be able to read it.
    let joined = rooms.join(&edge, "fair").await;
    let () = rooms.testbed.redis.client().hset("tutti:{room.fair}:head", ("room", "garbage")).await.unwrap();
    let stream = Stream::open(&edge, "fair", joined.visitor()).await;
    eventually("the stream says that it is stale", async || {
        stream.heard().statuses.last().is_some_and(|status| status == "stale")
    })
    .await;
    assert!(stream.heard().lost.is_none() && !stream.is_over(), "{:?}", stream.heard());

    rooms.testbed.redis.kill();
    for path in ["/v1/rooms", "/v1/rooms/fair/lottery"] {
        let (status, problem) = get(&rooms, &edge, path).await;
        assert_eq!(status, 503, "{problem}");
        tells_nothing_of_the_inside(&problem);
        is_in_the_log(&problem, &[&rooms.queues[0], &edge.service]);
    }
    rooms.queues[0].kill();
    eventually("the edge itself says that nobody answers", async || {
        let (status, problem) = get(&rooms, &edge, "/v1/rooms/fair/lottery").await;
        assert_eq!(status, 503, "{problem}");
        tells_nothing_of_the_inside(&problem);
        edge.service.log().contains(problem["requestId"].as_str().unwrap())
    })
    .await;
}

#[tokio::test]
async fn an_inbox_that_cannot_be_read_is_found_in_the_log_by_its_request_id() {
    let mut inboxes = Inboxes::start(kafka::shared(), 1).await;
    let edge = inboxes.edge(&[]).await;
    inboxes.testbed.redis.kill();
    let list = inboxes.call(Method::GET, &edge, "/v1/inbox", &token("7"), "").await;
    let mark = inboxes.call(Method::POST, &edge, "/v1/inbox/1/read", &token("7"), "").await;
    for answer in [list, mark] {
        assert_eq!(answer.status, 503, "{}", answer.body);
        tells_nothing_of_the_inside(&answer.body);
        is_in_the_log(&answer.body, &[&edge.service, &inboxes.replicas[0]]);
    }
}
