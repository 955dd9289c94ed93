//! The pages of the live map and of a waiting room in a real browser: on a phone, on plain HTTP, where a token is
//! refused, and on a connection that dies without a close.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tutti::token::sign;
use tutti_e2e::eventually;
use tutti_e2e::fixes::{Input, Map};
use tutti_e2e::rooms::{Rooms, SECRET};
use tutti_e2e::testbed::Testbed;
use tutti_e2e::viewer::Following;
use tutti_load::now_ms;

use crate::browser::Browser;
use crate::cable::Cable;

/// A time so long that no fix becomes stale within a test.
const LONG: (&str, &str) = ("locations.stale_after_seconds", "600");

/// Returns the map that the page holds: the timestamp of each device.
async fn held(browser: &Browser) -> Map {
    let map = "Object.fromEntries([...window.tutti.devices].map(([id, d]) => [id, d.timestamp]))";
    serde_json::from_value(browser.tell(map).await).unwrap_or_default()
}

async fn state(browser: &Browser) -> Value {
    browser.tell("document.querySelector('#state').dataset.state").await
}

#[tokio::test]
async fn both_pages_fit_the_screen_of_a_phone() {
    let rooms = Rooms::start(Testbed::new(1).await, 1, &[]).await;
    let edge = rooms.edge(&[]).await;
    let long_name = "a-room-with-as-long-a-name-as-there-may-be".repeat(2)[..64].to_owned();
    for name in ["sale", &long_name] {
        rooms.put(&edge, name, r#"{"maxActive":1}"#).await;
        rooms.join(&edge, name).await;
    }
    let screen = json!({"deviceMetrics": {"width": 390, "height": 844, "pixelRatio": 3.0, "mobile": true}});
    let browser = Browser::start_with(rooms.testbed.folder(), &[], screen).await;
    for path in ["", "rooms/sale", &format!("rooms/{long_name}")] {
        browser.client.goto(&format!("{}/{path}", edge.url)).await.unwrap();
        if !path.is_empty() {
            eventually("it shows the place", async || browser.text("#place").await == "1").await;
        }
        // A phone shrinks a page that is too wide. Then the width of the window grows, too.
        let widths = browser.tell("[innerWidth, document.documentElement.scrollWidth]").await;
        assert_eq!(widths, json!([390, 390]), "/{path}");
    }
    browser.client.close().await.unwrap();
}

#[tokio::test]
async fn a_phone_takes_a_place_in_line_over_plain_http() {
    let rooms = Rooms::start(Testbed::new(1).await, 1, &[]).await;
    let edge = rooms.edge(&[]).await;
    rooms.put(&edge, "sale", r#"{"maxActive":1}"#).await;
    rooms.join(&edge, "sale").await;
    let names = ["--host-resolver-rules=MAP phone.test 127.0.0.1"];
    let browser = Browser::start_with(rooms.testbed.folder(), &names, json!({})).await;
    let url = edge.url.replace("127.0.0.1", "phone.test");
    browser.client.goto(&format!("{url}/rooms/sale")).await.unwrap();
    assert_eq!(browser.tell("isSecureContext").await, false);
    eventually("it shows the place", async || browser.text("#place").await == "1").await;
    let key = browser.tell("localStorage.getItem('tutti-key-sale')").await;
    let key = uuid::Uuid::parse_str(key.as_str().unwrap()).unwrap();
    assert_eq!((key.get_version_num(), key.get_variant()), (4, uuid::Variant::RFC4122));
    browser.client.close().await.unwrap();
}

#[tokio::test]
async fn a_time_on_another_day_is_shown_with_that_day() {
    let rooms = Rooms::start(Testbed::new(1).await, 1, &[]).await;
    let edge = rooms.edge(&[]).await;
    let opens_at = now_ms() + 3 * 86_400_000;
    rooms.put(&edge, "sale", &json!({ "opensAt": opens_at }).to_string()).await;
    let browser = Browser::start(rooms.testbed.folder()).await;

    browser.client.goto(&format!("{}/rooms/sale", edge.url)).await.unwrap();
    let day = format!("new Date({opens_at}).toLocaleDateString([], {{ weekday: 'long' }})");
    let day = browser.tell(&day).await.as_str().unwrap().to_owned();
    eventually("it says when it opens", async || browser.text("#text").await.starts_with("Opens ")).await;
    let text = browser.text("#text").await;
    assert!(text.starts_with(&format!("Opens {day}, ")), "{text}");
    let next_year = browser.tell("timeOf(Date.now() + 366 * 86400e3)").await;
    let year = browser.tell("String(new Date(Date.now() + 366 * 86400e3).getFullYear())").await;
    assert!(next_year.as_str().unwrap().contains(year.as_str().unwrap()), "{next_year}");

    let days = "[0, 3].map(days => new Date(Date.now() - days * 86400e3)).map(at => \
                timeOf(at.getTime()).includes(at.toLocaleDateString([], { weekday: 'short' })))";
    assert_eq!(browser.tell(days).await, json!([false, true]), "a room");
    browser.client.goto(&edge.url).await.unwrap();
    assert_eq!(browser.tell(days).await, json!([false, true]), "the map");
    browser.client.close().await.unwrap();
}

#[tokio::test]
async fn the_page_of_a_private_map_says_why_it_shows_nothing_and_stops() {
    let testbed = Testbed::new(1).await;
    let private = [("map.public", "false"), ("auth.hs256_secret", SECRET)];
    let (_ingest, [edge]) = testbed.up([&private]).await;
    let browser = Browser::start(testbed.folder()).await;
    browser.client.goto(&edge.url).await.unwrap();
    eventually("it says that it was refused", async || {
        browser.text("#state").await == "refused: unauthorized"
    })
    .await;
    assert_ne!(browser.text("#why").await, "");
    assert_eq!(browser.tell("document.querySelector('#why').hidden").await, false);
    // The same must hold after the visitor has moved the map.
    let after_a_move = "(view.fitting = false, lookHere(), connection.source.readyState)";
    assert_eq!(browser.tell(after_a_move).await, 2, "closed");

    let token = sign(SECRET, "7", "map:read", Duration::from_secs(600)).unwrap();
    browser.client.goto(&format!("{}/?access_token={token}", edge.url)).await.unwrap();
    eventually("with a token it is live", async || state(&browser).await == "live").await;
    browser.client.close().await.unwrap();
}

#[tokio::test]
async fn the_map_says_that_all_places_are_taken_and_begins_once_there_is_one() {
    let testbed = Testbed::new(1).await;
    let (_ingest, [edge]) = testbed.up([&[("streams.max", "1")]]).await;
    let only = Following::start(&edge.stream()).await;
    let browser = Browser::start(testbed.folder()).await;
    browser.client.goto(&edge.url).await.unwrap();
    eventually("it is busy", async || state(&browser).await == "busy").await;
    let why = browser.text("#why").await;
    assert!(why.starts_with("All places are taken; trying again within "), "{why}");
    only.cut();
    eventually("it is live", async || state(&browser).await == "live").await;
    assert_eq!(browser.text("#why").await, "");
    browser.client.close().await.unwrap();
}

#[tokio::test]
async fn fixes_per_second_leave_out_what_was_on_the_map_before() {
    let testbed = Testbed::new(1).await.with(LONG.0, LONG.1);
    let (_ingest, [edge]) = testbed.up([&[]]).await;
    // More devices than fit in one event.
    let (publisher, mut input) = (testbed.publisher(), Input::new(500));
    input.send(&publisher, 500).await;
    eventually("all are there", async || edge.map().await == input.expected).await;
    let browser = Browser::start(testbed.folder()).await;
    browser.client.goto(&edge.url).await.unwrap();
    eventually("the page holds them", async || held(&browser).await == input.expected).await;
    assert_eq!(browser.tell("fixesApplied").await, 0);
    input.send(&publisher, 20).await;
    eventually("it holds news", async || held(&browser).await == input.expected).await;
    assert_eq!(browser.tell("fixesApplied").await, 20);
    // For another part of the map the edge sends everything again.
    let move_it = "(() => {
        const { reset } = handlers;
        handlers.reset = notice => { window.wasReset = true; reset(notice); };
        moveView({ x: 0, y: 0 }, { x: 0, y: 0 }, 1);
    })()";
    browser.tell(move_it).await;
    eventually("it holds them again", async || {
        browser.tell("window.wasReset && connection.filling === null").await == true
            && held(&browser).await == input.expected
    })
    .await;
    input.send(&publisher, 20).await;
    eventually("it holds news", async || held(&browser).await == input.expected).await;
    assert_eq!(browser.tell("fixesApplied").await, 40);
    browser.client.close().await.unwrap();
}

#[tokio::test]
async fn the_map_notices_that_its_connection_is_dead_and_goes_on_from_where_it_was() {
    let testbed = Testbed::new(1).await.with(LONG.0, LONG.1);
    let (_ingest, [edge]) = testbed.up([&[("streams.heartbeat_seconds", "2")]]).await;
    let (publisher, mut input) = (testbed.publisher(), Input::new(20));
    input.send(&publisher, 20).await;
    eventually("all are there", async || edge.map().await == input.expected).await;
    let (cable, browser) = (Cable::to(&edge).await, Browser::start(testbed.folder()).await);
    browser.client.goto(&cable.url).await.unwrap();
    eventually("the page holds them", async || held(&browser).await == input.expected).await;
    cable.cut();
    input.send(&publisher, 20).await;
    eventually("it says that it has lost the connection", async || {
        state(&browser).await == "lost" && browser.text("#state").await == "connection lost"
    })
    .await;
    assert_ne!(held(&browser).await, input.expected, "nothing came through");
    cable.mend();
    eventually("it has come back", async || {
        held(&browser).await == input.expected && state(&browser).await == "live"
    })
    .await;
    assert_eq!(browser.tell("tutti.resets").await, 0, "the page resumed, without a reset");
    browser.client.close().await.unwrap();
}

#[tokio::test]
async fn a_visitor_who_waits_notices_that_the_connection_is_dead_and_sees_the_place_again() {
    let rooms = Rooms::start(Testbed::new(1).await, 1, &[]).await;
    let edge = rooms.edge(&[("streams.heartbeat_seconds", "2")]).await;
    rooms.put(&edge, "sale", r#"{"maxActive":1}"#).await;
    rooms.join(&edge, "sale").await;
    let waits = rooms.join(&edge, "sale").await;
    let (cable, browser) = (Cable::to(&edge).await, Browser::start(rooms.testbed.folder()).await);
    browser.client.goto(&format!("{}/rooms/sale", cable.url)).await.unwrap();
    eventually("it shows the place", async || browser.text("#place").await == "2").await;
    cable.cut();
    rooms.act(Method::DELETE, &edge, "sale", &waits, "").await;
    eventually("it says that it has lost the connection", async || {
        browser.text("#state").await == "Connection lost; trying again"
    })
    .await;
    assert_eq!(browser.text("#place").await, "2", "nothing came through");
    cable.mend();
    eventually("it has moved up", async || browser.text("#place").await == "1").await;
    eventually("all is well", async || browser.text("#state").await.is_empty()).await;
    assert_eq!(rooms.room(&edge, "sale").await["figures"]["joined"], 3, "its place is the same");
    browser.client.close().await.unwrap();
}
