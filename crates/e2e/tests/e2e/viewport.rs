//! Streams and snapshots of a box: the devices in the tiles that it touches, and no others.

use std::collections::BTreeMap;

use rand::Rng as _;
use serde_json::{Value, json};
use tutti_e2e::eventually;
use tutti_e2e::fixes::{Map, map_of_viewer};
use tutti_e2e::testbed::{Edge, Testbed};
use tutti_e2e::viewport::{Area, Bounds, Fleet, Place, Screen, Watching, cell};

/// A time so long that no fix becomes stale within a test.
const LONG: (&str, &str) = ("locations.stale_after_seconds", "600");

const CITY: Bounds = [-122.5, 37.7, -122.35, 37.83];
/// Another box that touches the same tiles as the city.
const SAME_CITY: Bounds = [-122.51, 37.7, -122.36, 37.83];
/// A box that shares some tiles with the city.
const BAY: Bounds = [-122.45, 37.75, -122.28, 37.9];
/// The bounds of devices that walk. They extend beyond those of all boxes.
const AROUND: Bounds = [-122.62, 37.58, -122.25, 37.95];
/// Places inside and outside of all boxes.
const INSIDE: Place = (37.77, -122.41);
const OUTSIDE: Place = (37.3, -121.9);

#[tokio::test]
async fn viewers_of_a_box_on_two_edges_hold_what_is_in_it_while_devices_cross_its_border() {
    let testbed = Testbed::new(3).await.with(LONG.0, LONG.1);
    let (_ingest, [a, b]) = testbed.up([&[], &[]]).await;
    let mut fleet = Fleet::new(&testbed, AROUND);
    let early = Watching::start(&stream(&a, CITY)).await;
    fleet.walk(75).await;
    let late = Watching::start(&stream(&b, CITY)).await;
    fleet.walk(75).await;
    fleet.flush().await;
    let expected = fleet.within(CITY);
    assert!(expected.len() > 20 && fleet.all().len() > expected.len() + 20, "they are on both sides");
    for watching in [&early, &late] {
        shows(watching, &expected).await;
        let screen = watching.now();
        screen.looks_at(CITY);
        assert!(screen.in_order.removals > 20, "devices left: {}", screen.in_order.removals);
        assert_eq!(screen.in_order.steps_back, 0);
        assert_eq!(screen.in_order.resets, [""; 0]);
    }
}

#[tokio::test]
async fn who_looks_elsewhere_gets_a_reset_and_all_that_is_there() {
    let testbed = Testbed::new(3).await.with(LONG.0, LONG.1);
    let (_ingest, [a, b]) = testbed.up([&[], &[]]).await;
    let mut fleet = Fleet::new(&testbed, AROUND);
    let city = [Watching::start(&stream(&a, CITY)).await, Watching::start(&stream(&b, CITY)).await];
    fleet.walk(30).await;
    for one in &city {
        shows(one, &fleet.within(CITY)).await;
    }

    let bay = on_the_other(city, [stream(&b, BAY), stream(&a, BAY)], &mut fleet).await;
    for one in &bay {
        shows(one, &fleet.within(BAY)).await;
        one.now().looks_at(BAY);
        assert_eq!(one.now().in_order.resets, ["other_view"]);
    }

    let world = on_the_other(bay, [a.stream(), b.stream()], &mut fleet).await;
    for one in &world {
        shows(one, &fleet.all()).await;
        assert_eq!(one.now().in_order.resets.len(), 2, "what was shown in a box is not the world");
    }

    let city = on_the_other(world, [stream(&b, CITY), stream(&a, CITY)], &mut fleet).await;
    for one in &city {
        shows(one, &fleet.within(CITY)).await;
        one.now().looks_at(CITY);
        assert_eq!(one.now().in_order.resets[2..], ["other_view"]);
    }
}

/// Lets two viewers resume, each at another stream, while devices move.
async fn on_the_other(viewers: [Watching; 2], streams: [String; 2], fleet: &mut Fleet) -> [Watching; 2] {
    let [one, other] = viewers;
    let one = Watching::go_on(&streams[0], one.cut_at_an_id(fleet).await).await;
    let other = Watching::go_on(&streams[1], other.cut_at_an_id(fleet).await).await;
    fleet.walk(10).await;
    [one, other]
}

#[tokio::test]
async fn who_comes_back_to_a_box_hears_who_crossed_its_border_and_gets_no_reset() {
    let testbed = Testbed::new(3).await.with(LONG.0, LONG.1);
    let (_ingest, [a, b]) = testbed.up([&[], &[]]).await;
    let mut fleet = Fleet::new(&testbed, AROUND);
    for id in ["stays", "leaves", "is removed"] {
        fleet.put(id, INSIDE).await;
    }
    fleet.put("enters", OUTSIDE).await;
    knows(&a, &fleet).await;
    let first = Watching::start(&stream(&a, CITY)).await;
    let second = Watching::start(&stream(&a, CITY)).await;
    for watching in [&first, &second] {
        shows(watching, &fleet.within(CITY)).await;
    }
    let (first, second) = (first.cut_at_an_id(&mut fleet).await, second.cut_at_an_id(&mut fleet).await);

    fleet.put("leaves", OUTSIDE).await;
    fleet.remove("is removed").await;
    fleet.put("enters", INSIDE).await;
    fleet.walk(30).await;
    for edge in [&a, &b] {
        knows(edge, &fleet).await;
    }
    assert_eq!(Area::of(SAME_CITY), Area::of(CITY));
    let first = Watching::go_on(&stream(&b, CITY), first).await;
    let second = Watching::go_on(&stream(&a, SAME_CITY), second).await;
    fleet.walk(10).await;
    for watching in [&first, &second] {
        shows(watching, &fleet.within(CITY)).await;
        let screen = watching.now();
        screen.looks_at(CITY);
        assert_eq!(screen.in_order.resets, [""; 0]);
        assert_eq!(screen.in_order.steps_back, 0);
        assert!(!screen.named.contains("stays"), "only what is new");
    }
}

#[tokio::test]
async fn a_box_may_lie_across_the_antimeridian() {
    let testbed = Testbed::new(1).await.with(LONG.0, LONG.1);
    let (_ingest, [edge]) = testbed.up([&[]]).await;
    let mut fleet = Fleet::new(&testbed, AROUND);
    let across = [170.0, -20.0, -170.0, 20.0];
    for (id, longitude) in [("west of it", 179.9), ("east of it", -179.9), ("far", 0.0), ("too far", 160.0)] {
        fleet.put(id, (0.5, longitude)).await;
    }
    let watching = Watching::start(&stream(&edge, across)).await;
    shows(&watching, &fleet.within(across)).await;
    assert!(fleet.within(across).keys().eq(["east of it", "west of it"]), "this test filters right");
    {
        let screen = watching.now();
        screen.looks_at(across);
        assert_eq!((&screen.view["zoom"], &screen.view["tiles"]), (&json!(5), &json!(8)));
        let corners = screen.view["bbox"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap().round());
        assert!(corners.eq([169.0, -22.0, -169.0, 22.0]), "{}", screen.view);
    }
    fleet.put("west of it", (0.5, -179.8)).await;
    fleet.put("east of it", (0.5, 0.5)).await;
    shows(&watching, &fleet.within(across)).await;
    assert_eq!(fleet.within(across).len(), 1);
}

#[tokio::test]
async fn a_box_at_a_pole_has_what_is_beyond_the_tiles_and_a_box_of_the_world_has_all() {
    let testbed = Testbed::new(1).await.with(LONG.0, LONG.1);
    let (_ingest, [edge]) = testbed.up([&[]]).await;
    let mut fleet = Fleet::new(&testbed, AROUND);
    for (id, latitude) in [("north pole", 89.9), ("south pole", -89.9), ("equator", 0.5)] {
        fleet.put(id, (latitude, 10.5)).await;
    }
    let (north, world) = ([-20.0, 80.0, 30.0, 90.0], [-180.0, -90.0, 180.0, 90.0]);
    let poles = [(north, vec!["north pole"]), (world, vec!["equator", "north pole", "south pole"])];
    for (bounds, ids) in poles {
        let watching = Watching::start(&stream(&edge, bounds)).await;
        shows(&watching, &fleet.within(bounds)).await;
        assert!(fleet.within(bounds).keys().eq(ids), "this test filters right");
        watching.now().looks_at(bounds);
    }
}

#[tokio::test]
async fn a_box_as_libraries_for_maps_write_it_is_the_same_box_of_this_world() {
    let testbed = Testbed::new(1).await.with(LONG.0, LONG.1);
    let (_ingest, [edge]) = testbed.up([&[]]).await;
    let mut fleet = Fleet::new(&testbed, AROUND);
    for (id, place) in [("suva", (-18.1, 178.4)), ("apia", (-13.8, -171.8)), ("oslo", (59.9, 10.7))] {
        fleet.put(id, place).await;
    }
    knows(&edge, &fleet).await;
    for (text, same, devices) in [
        ("182.9,-18.1,193.1,-9.7", [-177.1, -18.1, -166.9, -9.7], vec!["apia"]),
        ("-190,-20,-170,-10", [170.0, -20.0, -170.0, -10.0], vec!["apia", "suva"]),
        ("-200.5,-95,200.5,95", [-180.0, -90.0, 180.0, 90.0], vec!["apia", "oslo", "suva"]),
        ("8%2C+50%2C%2012.0%2C1e2", [8.0, 50.0, 12.0, 90.0], vec!["oslo"]),
    ] {
        let watching = Watching::start(&format!("{}?maxSeconds=60.0&bbox={text}", edge.stream())).await;
        eventually("its devices are shown", async || watching.now().settled).await;
        {
            let screen = watching.now();
            screen.looks_at(same);
            assert_eq!(screen.by_timestamps().into_keys().collect::<Vec<_>>(), devices, "{text}");
        }
        let (_, listed) = get(&format!("{}?bbox={text}", snapshot(&edge)), "application/json").await;
        assert_eq!(listed["locations"].as_array().unwrap().len(), devices.len(), "{text}");
    }
}

#[tokio::test]
async fn a_box_that_is_none_is_answered_with_what_to_write() {
    let testbed = Testbed::new(1).await;
    let (_ingest, [edge]) = testbed.up([&[]]).await;
    let nonsense = [
        ("nothing", ""),
        ("three numbers", "1,2,3"),
        ("five numbers", "1,2,3,4,5"),
        ("a number that is missing", "1,,3,4"),
        ("text", "here"),
        ("text for a number", "1,2,3,north"),
        ("not a number", "NaN,0,1,1"),
        ("infinity", "0,0,inf,1"),
        ("too large for a number", "0,0,1e999,1"),
        ("south above north", "0,2,1,1"),
        ("a map without a size", "Infinity,Infinity,-Infinity,-Infinity"),
    ];
    for url in [edge.stream(), snapshot(&edge)] {
        for (what, text) in nonsense {
            let response = reqwest::get(format!("{url}?bbox={text}")).await.unwrap();
            assert_eq!(response.status(), 400, "{url}: {what}");
            assert_eq!(response.headers()["content-type"], "application/problem+json", "{url}: {what}");
            let problem: Value = response.json().await.unwrap();
            assert_eq!(problem["status"], 400, "{what}");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains("west,south,east,north"), "{what}: {detail}");
        }
    }
}

#[tokio::test]
async fn a_snapshot_of_a_box_or_as_geojson_is_a_place_from_which_a_stream_goes_on() {
    let testbed = Testbed::new(2).await.with(LONG.0, LONG.1);
    let (_ingest, [edge]) = testbed.up([&[]]).await;
    let mut fleet = Fleet::new(&testbed, AROUND);
    fleet.walk(20).await;
    knows(&edge, &fleet).await;
    let (all, city) = (snapshot(&edge), format!("{}?{}", snapshot(&edge), query(CITY)));

    let (kind, plain) = get(&city, "application/json").await;
    assert!(kind.starts_with("application/json"), "{kind}");
    assert_eq!(map_of(plain["locations"].as_array().unwrap().iter()), fleet.within(CITY));

    let mut cursor = String::new();
    for (url, expected) in [(&all, fleet.all()), (&city, fleet.within(CITY))] {
        let (kind, collection) = get(url, "application/geo+json").await;
        assert!(kind.starts_with("application/geo+json"), "{kind}");
        assert_eq!(collection["type"], "FeatureCollection");
        assert_eq!(collection.get("bbox"), None);
        let features = collection["features"].as_array().unwrap();
        assert_eq!(map_of(features.iter().map(|feature| &feature["properties"])), expected);
        for feature in features {
            assert_eq!(
                (&feature["type"], &feature["geometry"]["type"]),
                (&json!("Feature"), &json!("Point"))
            );
            assert_eq!(feature["id"], feature["properties"]["mediaId"]);
            assert_eq!(feature["properties"]["speed"], 1.5);
            let (latitude, longitude) = fleet.held[feature["id"].as_str().unwrap()].place;
            let coordinates = feature["geometry"]["coordinates"].as_array().unwrap();
            assert_eq!(coordinates.len(), 2);
            assert!((coordinates[0].as_f64().unwrap() - longitude).abs() < 1e-9, "longitude is first");
            assert!((coordinates[1].as_f64().unwrap() - latitude).abs() < 1e-9, "latitude is second");
        }
        collection["cursor"].as_str().unwrap().clone_into(&mut cursor);
    }

    let since = format!("{}&since={}", stream(&edge, CITY), plain["id"].as_str().unwrap());
    let by_query = Watching::start(&since).await;
    let by_header = Watching::go_on(&stream(&edge, CITY), Screen::after(&cursor)).await;
    fleet.put("news", INSIDE).await;
    for watching in [&by_query, &by_header] {
        eventually("news arrives", || async { watching.now().named.contains("news") }).await;
        let screen = watching.now();
        assert_eq!(screen.in_order.fixes, 1, "only what is new");
        assert_eq!(screen.in_order.resets, [""; 0]);
    }
}

#[tokio::test]
async fn a_wide_area_is_told_as_counts_of_its_cells_if_the_edge_is_set_so() {
    let testbed = Testbed::new(2).await.with(LONG.0, LONG.1);
    let (_ingest, [edge]) = testbed.up([&[("map.clusters_to_zoom", "5")]]).await;
    let mut fleet = Fleet::new(&testbed, AROUND);
    let wide = [1.0, 1.0, 40.0, 40.0]; // zoom 5, where the setting ends
    for n in 0..200 {
        let place = (fleet.random.random_range(5.0..30.0), fleet.random.random_range(5.0..22.0));
        fleet.put(&format!("inside-{n}"), place).await;
        fleet.put(&format!("outside-{n}"), (place.0 - 40.0, place.1)).await;
    }
    let (here, there) = ((33.0, 33.0), (36.0, 36.0));
    fleet.put("stays", here).await;
    fleet.put("moves", here).await;
    let watching = Watching::start(&stream(&edge, wide)).await;
    counts(&watching, &fleet.cells(wide)).await;
    watching.now().looks_at(wide);
    assert_eq!(watching.now().cells.values().sum::<u64>(), 202);

    watching.now().changed.clear();
    fleet.put("moves", there).await;
    counts(&watching, &fleet.cells(wide)).await;
    let (here, there) = (cell(8, here), cell(8, there));
    assert_eq!(watching.now().changed, BTreeMap::from([(here, 1), (there.clone(), 1)]));

    watching.now().changed.clear();
    fleet.remove("moves").await;
    counts(&watching, &fleet.cells(wide)).await;
    assert_eq!(watching.now().changed, BTreeMap::from([(there, 0)]));
    assert!(watching.now().named.is_empty(), "cells in place of devices");

    eventually("it has an id", || async { watching.now().settled }).await;
    let back = Watching::go_on(&stream(&edge, wide), watching.cut()).await;
    eventually("it gets a reset", || async { back.now().in_order.resets == ["clusters"] }).await;
    counts(&back, &fleet.cells(wide)).await;

    let close = Watching::start(&stream(&edge, CITY)).await;
    fleet.put("in town", INSIDE).await;
    shows(&close, &fleet.within(CITY)).await;
    assert!(close.now().cells.is_empty(), "devices in place of cells");
}

#[tokio::test]
async fn a_small_box_costs_little_and_names_nobody_outside() {
    let testbed = Testbed::new(2).await.with(LONG.0, LONG.1);
    let (_ingest, [edge]) = testbed.up([&[]]).await;
    let mut fleet = Fleet::new(&testbed, AROUND);
    let world = Watching::start(&edge.stream()).await;
    let city = Watching::start(&stream(&edge, CITY)).await;
    for _ in 0..3 {
        for n in 0..600 {
            let place = (fleet.random.random_range(-60.0..30.0), fleet.random.random_range(-60.0..170.0));
            fleet.put(&format!("far-{n}"), place).await;
        }
    }
    fleet.remove("far-0").await;
    for n in 0..20 {
        fleet.put(&format!("near-{n}"), INSIDE).await;
    }
    shows(&world, &fleet.all()).await;
    shows(&city, &fleet.within(CITY)).await;
    let (city, world) = (city.now(), world.now());
    assert_eq!(city.named.len(), 20, "{:?}", city.named);
    assert!(city.bytes * 5 < world.bytes, "{} bytes of {}", city.bytes, world.bytes);
}

fn query([west, south, east, north]: Bounds) -> String {
    format!("bbox={west},{south},{east},{north}")
}

fn stream(edge: &Edge, bounds: Bounds) -> String {
    format!("{}?{}", edge.stream(), query(bounds))
}

fn snapshot(edge: &Edge) -> String {
    format!("{}/v1/map/locations", edge.url)
}

/// Returns the content type and the JSON of a resource.
async fn get(url: &str, accept: &str) -> (String, Value) {
    let response = reqwest::Client::new().get(url).header("accept", accept).send().await.unwrap();
    assert_eq!(response.status(), 200, "{url}");
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    (kind, response.json().await.unwrap())
}

fn map_of<'a>(fixes: impl Iterator<Item = &'a Value>) -> Map {
    fixes.map(|fix| (fix["mediaId"].as_str().unwrap().into(), fix["timestamp"].as_i64().unwrap())).collect()
}

async fn knows(edge: &Edge, fleet: &Fleet) {
    eventually("the edge holds all that was sent", || async { edge.map().await == fleet.all() }).await;
}

async fn shows(watching: &Watching, expected: &Map) {
    eventually("what was sent, filtered, is held in order and by timestamps", || async {
        let screen = watching.now();
        map_of_viewer(&screen.in_order) == *expected && screen.by_timestamps() == *expected
    })
    .await;
}

async fn counts(watching: &Watching, expected: &BTreeMap<String, u64>) {
    eventually("the cells are those of what was sent", || async { watching.now().cells == *expected }).await;
}
