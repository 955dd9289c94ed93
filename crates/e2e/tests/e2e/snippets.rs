//! The snippets of README.md and docs/, as they stand. Those for browsers run in a browser, but for the addresses, and
//! with a shorter patience; `shell` has the others.

mod pages;
mod shell;

use reqwest::Method;
use serde_json::json;
use tutti_e2e::eventually;
use tutti_e2e::fixes::{Input, Map};
use tutti_e2e::inboxes::{Inboxes, token};
use tutti_e2e::kafka;
use tutti_e2e::rooms::Rooms;
use tutti_e2e::testbed::{Edge, Testbed};

use crate::browser::Browser;
use crate::cable::Cable;

/// A guide, and the heading above its snippet for browsers.
type Place = (&'static str, &'static str);

/// The function that the snippets of the guides stand on.
const FOLLOW: Place = ("docs/guides/browser.md", "Streams in a browser");

/// Returns the first JavaScript under a heading.
fn snippet((page, heading): Place) -> String {
    pages::under(page, heading, "js")
}

/// Runs `before`, [`FOLLOW`], the snippet at a place, and `after`, in a page of the origin at which streams are asked for.
async fn run(browser: &Browser, origin: &str, before: &str, place: Place, after: &str) {
    // A page without a script of its own.
    browser.client.goto(&format!("{origin}/v1/edges")).await.unwrap();
    let code = [before, &snippet(FOLLOW), &snippet(place), after].join("\n");
    let here = code.replace("http://127.0.0.1:8080", origin).replace("http://127.0.0.1:8081", origin);
    let hasty = here.replace("40_000", "5_000");
    assert_ne!(here, hasty, "the patience stands in the snippet");
    browser.client.execute(&hasty, Vec::new()).await.unwrap();
}

/// An edge that says often that it is there.
const LIVELY: (&str, &str) = ("streams.heartbeat_seconds", "2");

async fn cable_and_browser(edge: &Edge, testbed: &Testbed) -> (Cable, Browser) {
    (Cable::to(edge).await, Browser::start(testbed.folder()).await)
}

#[tokio::test]
async fn the_snippet_of_the_map_goes_on_after_its_connection_was_dead() {
    let testbed = Testbed::new(1).await.with("locations.stale_after_seconds", "600");
    let (_ingest, [edge]) = testbed.up([&[LIVELY]]).await;
    let (publisher, mut input) = (testbed.publisher(), Input::new(20));
    input.send(&publisher, 20).await;
    eventually("all are there", async || edge.map().await == input.expected).await;
    let (cable, browser) = cable_and_browser(&edge, &testbed).await;
    run(
        &browser,
        &cable.url,
        "",
        ("docs/guides/map.md", "Show it in a browser"),
        "window.devices = devices;",
    )
    .await;
    let map = "Object.fromEntries([...devices].map(([id, fix]) => [id, fix.timestamp]))";
    let held = async || serde_json::from_value::<Map>(browser.tell(map).await).unwrap_or_default();
    eventually("it holds the map", async || held().await == input.expected).await;
    cable.cut();
    input.send(&publisher, 20).await;
    eventually("the edge has news", async || edge.map().await == input.expected).await;
    assert_ne!(held().await, input.expected, "nothing came through");
    cable.mend();
    eventually("it has come back", async || held().await == input.expected).await;
    browser.client.close().await.unwrap();
}

#[tokio::test]
async fn the_snippet_of_the_waiting_room_gets_in_over_plain_http_after_its_connection_was_dead() {
    let rooms = Rooms::start(Testbed::new(1).await, 1, &[]).await;
    let edge = rooms.edge(&[LIVELY]).await;
    rooms.put(&edge, "demo", r#"{"maxActive":1,"admitPerSecond":50}"#).await;
    let inside = rooms.join(&edge, "demo").await;
    let names = ["--host-resolver-rules=MAP phone.test 127.0.0.1"];
    let (cable, browser) =
        (Cable::to(&edge).await, Browser::start_with(rooms.testbed.folder(), &names, json!({})).await);
    let origin = cable.url.replace("127.0.0.1", "phone.test");
    let show = "const show = place => window.place = place;";
    run(&browser, &origin, show, ("docs/guides/waiting-room.md", "In a browser"), "").await;
    assert_eq!(browser.tell("isSecureContext").await, false);
    eventually("it shows the place", async || browser.tell("window.place").await == 1).await;
    cable.cut();
    rooms.act(Method::POST, &edge, "demo", &inside, "/release").await;
    eventually("its turn has come", async || rooms.room(&edge, "demo").await["figures"]["admitted"] == 2)
        .await;
    cable.mend();
    eventually("it is in", async || rooms.room(&edge, "demo").await["figures"]["claimed"] == 1).await;
    browser.client.close().await.unwrap();
}

#[tokio::test]
async fn the_snippet_of_the_inbox_goes_on_after_its_connection_was_dead() {
    let inboxes = Inboxes::start(kafka::shared(), 1).await;
    let ingest = inboxes.ingest();
    let edge = inboxes.edge(&[LIVELY]).await;
    ingest.wait_ready().await;
    let urls = [edge.url.clone()];
    let send = async |key: &str| {
        inboxes.send_until_accepted(&urls, key, &json!({ "to": { "users": ["7"] }, "title": key })).await
    };
    send("first").await;
    let (cable, browser) = cable_and_browser(&edge, &inboxes.testbed).await;
    let before = format!(
        "const token = '{}', show = (inbox, unread) => {{ window.unread = unread ?? window.unread; }};",
        token("7")
    );
    run(&browser, &cable.url, &before, ("docs/guides/inbox.md", "In a browser"), "window.inbox = inbox;")
        .await;
    let titles = async || browser.tell("[...inbox.values()].map(({ title }) => title)").await;
    eventually("it holds the first", async || titles().await == json!(["first"])).await;
    send("second").await;
    eventually("it holds the second", async || titles().await == json!(["first", "second"])).await;
    cable.cut();
    send("third").await;
    cable.mend();
    eventually("it has come back", async || titles().await == json!(["first", "second", "third"])).await;
    assert_eq!(browser.tell("window.unread").await, 3);
    browser.client.close().await.unwrap();
}

#[tokio::test]
async fn the_snippet_of_the_readme_holds_the_map() {
    let testbed = Testbed::new(1).await.with("locations.stale_after_seconds", "600");
    let (_ingest, [edge]) = testbed.up([&[]]).await;
    let (publisher, mut input) = (testbed.publisher(), Input::new(20));
    input.send(&publisher, 20).await;
    eventually("all are there", async || edge.map().await == input.expected).await;
    let browser = Browser::start(testbed.folder()).await;
    browser.client.goto(&format!("{}/v1/edges", edge.url)).await.unwrap();
    let code = snippet(("README.md", "One snippet for each job")).replace("http://127.0.0.1:8080", &edge.url);
    browser.client.execute(&format!("{code}\nwindow.devices = devices;"), Vec::new()).await.unwrap();
    let map = "Object.fromEntries([...devices].map(([id, fix]) => [id, fix.timestamp]))";
    let held = async || serde_json::from_value::<Map>(browser.tell(map).await).unwrap_or_default();
    eventually("it holds the map", async || held().await == input.expected).await;
    input.send(&publisher, 20).await;
    eventually("it holds the news", async || held().await == input.expected).await;
    browser.client.close().await.unwrap();
}
