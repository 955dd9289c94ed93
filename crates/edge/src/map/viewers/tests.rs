use std::cell::RefCell;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tutti_model::{Change, Fix, change};
use tutti_service::CancellationToken;

use super::*;
use crate::map::area::Area;
use crate::map::state::tests::{map, record};
use crate::map::tick::Step;
use tutti_sse::coding::Coding;
use tutti_sse::hub::Timeouts;
use tutti_sse::pipe::pipe;
use tutti_sse::socket::Socket;

const T0: u64 = 1_700_000_000_000_000;

fn fix_at(id: &str, latitude: f64, longitude: f64) -> Change {
    let fix = Fix {
        media_id: id.to_owned(),
        timestamp_ms: (T0 / 1000) as i64,
        latitude,
        longitude,
        ..Fix::default()
    };
    Change { change: Some(change::Change::Fix(fix)) }
}

/// Starts a worker's streams of the map, at a step with a thousand devices far away and three in a district.
fn map_streams() -> Rc<MapStreams> {
    let (ticks, _) = broadcast::channel(16);
    let hour = Duration::from_secs(3600);
    let metrics = Metrics::new(&mut Registry::default());
    let timeouts = Timeouts { heartbeat: hour, stall: hour, drain: hour };
    let hub = Hub::start(timeouts, metrics.sse.clone(), CancellationToken::new());
    let streams = MapStreams::start(&hub, metrics, ticks.subscribe());
    let mut map = map(1);
    let mut fixes: Vec<Change> =
        (0..1000).map(|n| fix_at(&format!("far-{n}"), -30.0, f64::from(n) / 10.0)).collect();
    fixes.extend((0..3).map(|n| fix_at(&format!("near-{n}"), 47.37, 8.54)));
    map.apply(0, &record(1, T0, fixes));
    streams.step(&Arc::new(Tick::new(&mut map, Step::numbered(1))));
    streams
}

/// Opens a stream whose client reads everything that comes. Adds `name` to `order` when the client was shown
/// everything.
fn open(
    streams: &Rc<MapStreams>,
    name: &'static str,
    address: u8,
    view: View,
    order: &Rc<RefCell<Vec<&'static str>>>,
) -> JoinHandle<()> {
    // The pipe holds more than a client is shown, so that no stream waits for its client.
    let (writer, reader) = pipe(1 << 20);
    let (now, hour) = (Instant::now(), Duration::from_secs(3600));
    let ends_at = now + hour;
    let socket = Socket::Part(writer);
    let stream = Stream::new(socket, false, Coding::Identity, ends_at, CloseReason::Life, None);
    let asked = Subscription { shown: Shown::Nothing, view, address: Some([192, 0, 2, address].into()) };
    let admitting = streams.clone();
    let start = Box::new(move |stream, hello| admitting.admit(stream, hello, asked));
    streams.hub.open(stream, start, None);
    let last_id = format!("id: {}\n", view.id(&streams.current().unwrap().id));
    let order = order.clone();
    spawn_local(async move {
        let mut text: Vec<u8> = Vec::new();
        let mut looked_at = 0;
        while !text[looked_at..].windows(last_id.len()).any(|bytes| bytes == last_id.as_bytes()) {
            looked_at = text.len().saturating_sub(last_id.len());
            reader.readable().await;
            let part = reader.try_take().unwrap();
            assert!(!part.is_empty(), "{name} is shown all");
            text.extend_from_slice(&part);
        }
        order.borrow_mut().push(name);
    })
}

#[actix_web::test]
async fn viewers_of_one_address_that_walk_over_the_whole_map_delay_no_other_address() {
    let (streams, order) = (map_streams(), Rc::default());
    let mut clients: Vec<_> = (0..20).map(|_| open(&streams, "crowd", 1, View::World, &order)).collect();
    let district = Area::parse("8.5,47.35,8.6,47.4").unwrap();
    clients.push(open(&streams, "district", 2, View::Area(district), &order));
    clients.push(open(&streams, "whole map", 3, View::World, &order));
    for client in clients {
        client.await.unwrap();
    }
    let order = order.borrow();
    let place = |name| order.iter().position(|other| *other == name).unwrap();
    // Two replays of the whole map have begun before either client comes, and may end before.
    assert!(place("district") <= 2, "{order:?}");
    assert!(place("whole map") <= 5, "{order:?}");
    assert_eq!(streams.metrics.sse.waiting_for("replay").get(), 0);
}

#[actix_web::test]
async fn a_district_does_not_wait_for_whole_maps_of_its_own_address() {
    let (streams, order) = (map_streams(), Rc::default());
    let mut clients: Vec<_> = (0..20).map(|_| open(&streams, "crowd", 1, View::World, &order)).collect();
    let district = Area::parse("8.5,47.35,8.6,47.4").unwrap();
    clients.push(open(&streams, "district", 1, View::Area(district), &order));
    for client in clients {
        client.await.unwrap();
    }
    let place = order.borrow().iter().position(|name| *name == "district").unwrap();
    assert!(place <= 2, "{:?}", order.borrow());
}
