//! An edge with thousands of viewers says goodbye.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{interval, sleep};
use tutti_e2e::bed::{Bed, Edge, Input, map_of_viewer};
use tutti_e2e::eventually;
use tutti_e2e::wire::Wire;
use tutti_load::publisher::Publisher;

const CLIENTS: usize = 2000;
const DEVICES: u64 = 50;

/// All clients have one address. Steps as far apart as in production, for a machine that does all at once.
const SETTINGS: [(&str, &str); 4] = [
    ("streams.max_per_address", "0"),
    ("http.max_connections_per_address", "0"),
    ("streams.drain_seconds", "3"),
    ("map.tick_ms", "250"),
];

/// A viewer that goes on at the next edge when a stream has ended.
#[derive(Default)]
struct Client {
    wire: Wire,
    /// When its streams ended, each as HTTP, its coding and the map's events want it.
    ended: Vec<Instant>,
    failed: Option<String>,
}

struct Crowd {
    clients: Vec<Arc<Mutex<Client>>>,
    _tasks: JoinSet<()>,
}

impl Crowd {
    /// Clients of these edges, one after the other.
    fn start(edges: [&Edge; 2]) -> Self {
        let (mut clients, mut tasks) = (Vec::new(), JoinSet::new());
        for n in 0..CLIENTS {
            let client = Arc::new(Mutex::new(Client::default()));
            clients.push(client.clone());
            let addresses = edges.map(|edge| edge.url.trim_start_matches("http://").to_owned());
            // Some of them as browsers do.
            let accept_encoding = (n % 4 == 0).then_some("gzip");
            tasks.spawn(async move {
                if let Err(error) = watch(&client, addresses, accept_encoding).await {
                    client.lock().unwrap().failed = Some(format!("{error:#}"));
                }
            });
        }
        Self { clients, _tasks: tasks }
    }

    /// Whether this holds for all of them.
    fn all(&self, holds: impl Fn(&Client) -> bool) -> bool {
        self.clients.iter().all(|client| {
            let client = client.lock().unwrap();
            assert_eq!(client.failed, None);
            holds(&client)
        })
    }
}

async fn watch(
    client: &Mutex<Client>,
    addresses: [String; 2],
    accept_encoding: Option<&str>,
) -> anyhow::Result<()> {
    for address in addresses {
        let mut socket = TcpStream::connect(address).await?;
        let request = client.lock().unwrap().wire.request("/v1/map/stream", "1.1", accept_encoding);
        socket.write_all(request.as_bytes()).await?;
        let mut bytes = vec![0; 4096];
        loop {
            let length = socket.read(&mut bytes).await?;
            if length == 0 {
                break;
            }
            client.lock().unwrap().wire.take(&bytes[..length])?;
        }
        let retry = {
            let mut client = client.lock().unwrap();
            client.ended.push(Instant::now());
            let wire = std::mem::take(&mut client.wire);
            let retry = wire.retry;
            client.wire = Wire::after(wire.finish()?);
            retry
        };
        sleep(retry).await; // as it was told
    }
    anyhow::bail!("the last edge has ended its stream")
}

/// Moves the devices until it is told to stop; all that was sent.
fn publish(mut input: Input, publisher: Publisher, stop: Arc<AtomicBool>) -> JoinHandle<Input> {
    tokio::spawn(async move {
        let mut pace = interval(Duration::from_millis(20));
        while !stop.load(Ordering::Relaxed) {
            pace.tick().await;
            input.send(&publisher, 1).await;
        }
        publisher.flush(Duration::from_secs(30)).await.unwrap();
        input
    })
}

/// The largest share of them that is in one of ten equal parts of the time from the first to the last.
fn thickest_tenth(ends: &[Instant]) -> f64 {
    let (first, last) = (*ends.iter().min().unwrap(), *ends.iter().max().unwrap());
    let tenth = (last - first).as_secs_f64() / 10.0;
    let mut counts = [0u32; 10];
    for end in ends {
        counts[(((*end - first).as_secs_f64() / tenth) as usize).min(9)] += 1;
    }
    f64::from(*counts.iter().max().unwrap()) / ends.len() as f64
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_viewers_of_an_edge_that_stops_go_on_at_another_and_miss_nothing() {
    tutti_service::raise_file_limit();
    let bed = Bed::new(2).await.with("locations.stale_after_seconds", "600");
    let (_ingest, [first, second]) = bed.up([&SETTINGS, &SETTINGS]).await;
    let (publisher, mut input) = (bed.publisher(), Input::new(DEVICES));
    input.send(&publisher, DEVICES).await;
    eventually("both know the map", || async {
        first.map().await == input.expected && second.map().await == input.expected
    })
    .await;
    let stop = Arc::new(AtomicBool::new(false));
    let publishing = publish(input, publisher, stop.clone());
    let crowd = Crowd::start([&first, &second]);
    eventually("all are shown the map, and have an id", || async {
        crowd.all(|Client { wire: Wire { viewer, .. }, .. }| {
            viewer.devices.len() == DEVICES as usize && !["", "0"].contains(&viewer.last_id.as_str())
        })
    })
    .await;

    first.service.signal(Signal::SIGTERM);
    eventually("all have gone on", || async {
        crowd.all(|client| client.ended.len() == 1 && !client.wire.head.is_empty())
    })
    .await;
    eventually("the process ends", || async { !first.service.is_running() }).await;
    // After its grace period it would end with another.
    assert_eq!(first.service.exit_code(), Some(0), "{}", first.service.log());
    assert!(!first.service.log().contains("cutting them off"), "{}", first.service.log());

    stop.store(true, Ordering::Relaxed);
    let input = publishing.await.unwrap();
    assert!(input.sent > 2 * DEVICES, "they moved all the while");
    eventually("all hold what was sent", || async {
        crowd.all(|client| map_of_viewer(&client.wire.viewer) == input.expected)
    })
    .await;
    assert!(crowd.all(|client| client.wire.viewer.resets.is_empty()), "nobody began anew");
    assert!(crowd.all(|client| client.wire.viewer.steps_back == 0));
    let ends: Vec<Instant> =
        crowd.clients.iter().flat_map(|client| client.lock().unwrap().ended.clone()).collect();
    assert_eq!(ends.len(), CLIENTS);
    let thickest = thickest_tenth(&ends);
    assert!(thickest <= 0.8, "a share of {thickest} ended at the same time");
}
