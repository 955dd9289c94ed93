//! `tutti sim`: positions, a crowd in front of a waiting room, users with their inboxes.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Subcommand;
use tutti_load::city::City;
use tutti_load::crowd::{Crowd, Figures};
use tutti_load::inbox::{self, Inboxes, Verdict};
use tutti_load::publisher::Publisher;
use tutti_load::taxis::Taxis;
use tutti_load::watch::quantile;
use tutti_service::{raise_file_limit, stop_signal};

use crate::token::{DEVELOPMENT_SECRET, sign};
use crate::up::TOPIC;

/// What to simulate.
#[derive(Subcommand)]
pub enum Sim {
    /// The recorded taxis of San Francisco that `tutti up` plays, in an endless loop
    Taxis {
        /// Where they go
        #[command(flatten)]
        to: To,
    },
    /// People who all want into a waiting room at once
    Crowd(CrowdOptions),
    /// Users whose devices hold their inboxes, and a sender that notifies them
    Inbox(InboxOptions),
    /// Devices that drive about in a city
    City {
        /// How many devices
        #[arg(long, default_value_t = 1000)]
        devices: u32,
        /// Fixes a second, of all devices together
        #[arg(long, default_value_t = 200.0)]
        rate: f64,
        /// Stop after so many fixes
        #[arg(long)]
        fixes: Option<u64>,
        /// The seed of all random choices; with one seed devices always drive the same ways
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Where they go
        #[command(flatten)]
        to: To,
    },
}

/// Options of a crowd.
#[derive(clap::Args)]
pub struct CrowdOptions {
    /// How many people
    #[arg(long, default_value_t = 1000)]
    people: u32,
    /// The time within which they come, such as 10s, 2m
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    over: Duration,
    /// How many of them hold a stream open; the others ask now and then; by default all
    #[arg(long)]
    streams: Option<u32>,
    /// People without a stream never come back
    #[arg(long)]
    no_shows: bool,
    /// How long they stay inside
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    stay: Duration,
    /// The room, which must exist
    #[arg(long, default_value = "demo")]
    room: String,
    /// Base URLs of edges
    #[arg(long = "edge", value_name = "URL", default_values_t = ["http://127.0.0.1:8080".to_owned(), "http://127.0.0.1:8081".to_owned()])]
    edges: Vec<String>,
}

/// Options of users with their inboxes.
#[derive(clap::Args)]
pub struct InboxOptions {
    /// How many users
    #[arg(long, default_value_t = 200)]
    users: u32,
    /// How many devices, of all users together
    #[arg(long, default_value_t = 300)]
    devices: u32,
    /// Notifications a second
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// Stop after this time, such as 30s, 5m; by default with Ctrl-C
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    lasts: Option<Duration>,
    /// The HS256 secret of the edges; by default that of `tutti up`
    #[arg(long, env = "TUTTI_AUTH_HS256_SECRET", hide_env_values = true, default_value = DEVELOPMENT_SECRET, hide_default_value = true)]
    secret: String,
    /// Base URLs of edges
    #[arg(long = "edge", value_name = "URL", default_values_t = ["http://127.0.0.1:8080".to_owned(), "http://127.0.0.1:8081".to_owned()])]
    edges: Vec<String>,
}

/// The topic that positions go to.
#[derive(clap::Args)]
pub struct To {
    /// Kafka, host:port,...
    #[arg(long, env = "KAFKA", default_value = "127.0.0.1:9092")]
    brokers: String,
    /// The topic
    #[arg(long, default_value = TOPIC)]
    topic: String,
}

/// Runs a simulation until it is over or the process is told to stop. Prints its progress on stderr.
///
/// # Errors
/// If Kafka or an edge does not answer, or refuses what is sent.
pub async fn simulate(what: Sim) -> anyhow::Result<()> {
    let (to, city) = match what {
        Sim::Crowd(options) => return crowd(options).await,
        Sim::Inbox(options) => return inboxes(options).await,
        Sim::Taxis { to } => (to, None),
        Sim::City { devices, rate, fixes, seed, to } => {
            (to, Some(City { devices, rate, fixes, seed, radius: 0.2 }))
        }
    };
    let publisher = Publisher::new(&to.brokers, &to.topic)?;
    let deliveries = publisher.deliveries().clone();
    eprintln!("to topic {} at {}; Ctrl-C ends it", to.topic, to.brokers);
    let run = async {
        match &city {
            None => {
                let taxis = Taxis::load()?;
                eprintln!("{} vehicles", taxis.vehicles());
                taxis.play(&publisher).await
            }
            Some(city) => {
                eprintln!("{} devices, {} fixes/s", city.devices, city.rate);
                city.run(&publisher).await
            }
        }
    };
    let progress = async {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        while std::io::stderr().is_terminal() {
            seconds.tick().await;
            eprint!("\r{} acknowledged, {} failed", deliveries.acknowledged(), deliveries.failed());
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = run => ended?,
        () = progress => unreachable!("progress never ends"),
        _ = stop_signal() => {}
    }
    let flushed = publisher.flush(Duration::from_secs(10)).await;
    eprintln!("\r{} acknowledged, {} failed", deliveries.acknowledged(), deliveries.failed());
    flushed
}

async fn crowd(options: CrowdOptions) -> anyhow::Result<()> {
    raise_file_limit();
    let CrowdOptions { people, over, streams, no_shows, stay, room, edges } = options;
    let streams = streams.unwrap_or(people).min(people);
    let crowd = Crowd { edges, room, people, over, streams, no_shows, stay };
    let figures = Arc::new(Figures::default());
    eprintln!("{people} people to the room {}; Ctrl-C ends it", crowd.room);
    let told = figures.clone();
    let progress = async move {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        loop {
            seconds.tick().await;
            eprintln!("{}", figures_line(&told));
        }
    };
    tokio::select! {
        visitors = crowd.run(&figures) => {
            let visitors = visitors?;
            let grew: u64 = visitors.iter().map(|v| v.grew).sum();
            let updates: usize = visitors.iter().map(|v| v.updates.len()).sum();
            eprintln!("{}; {updates} updates, {grew} of them with a position that grew", figures_line(&figures));
        }
        () = progress => unreachable!("progress never ends"),
        _ = stop_signal() => {}
    }
    Ok(())
}

fn figures_line(figures: &Figures) -> String {
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    format!(
        "{} joined, {} admitted, {} done, {} lost, {} streams, {} requests made again",
        of(&figures.joined),
        of(&figures.admitted),
        of(&figures.done),
        of(&figures.lost),
        of(&figures.streams),
        of(&figures.again),
    )
}

async fn inboxes(options: InboxOptions) -> anyhow::Result<()> {
    raise_file_limit();
    let InboxOptions { users, devices, rate, lasts, secret, edges } = options;
    let tokens = Arc::new(move |sub: &str, scope: &str| sign(&secret, sub, scope, Duration::from_secs(3600)));
    let inboxes = Inboxes { edges, users, devices, rate, tokens };
    let figures = Arc::new(inbox::Figures::default());
    eprintln!("{devices} devices of {users} users, {rate} notifications/s; Ctrl-C ends it");
    let told = figures.clone();
    let progress = async move {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        let mut from = 0;
        while std::io::stderr().is_terminal() {
            seconds.tick().await;
            let delays = told.delays_us(from);
            from += delays.len();
            eprintln!("{}", inboxes_line(&told, delays));
        }
        std::future::pending::<()>().await;
    };
    let stop = async move {
        let over = async {
            match lasts {
                Some(lasts) => tokio::time::sleep(lasts).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => {}
            _ = stop_signal() => {}
        }
    };
    tokio::select! {
        outcome = inboxes.run(&figures, stop) => {
            let Verdict { missing, out_of_order, unread_apart } = outcome?.verdict;
            eprintln!(
                "{}; {missing} missing, {out_of_order} out of order, {unread_apart} users with different counts of unread",
                inboxes_line(&figures, figures.delays_us(0)),
            );
        }
        () = progress => unreachable!("progress never ends"),
    }
    Ok(())
}

fn inboxes_line(figures: &inbox::Figures, mut delays_us: Vec<i64>) -> String {
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mut delay = |share| {
        let delay = quantile(&mut delays_us, share);
        delay.map_or("-".to_owned(), |us| format!("{:.1}", us as f64 / 1000.0))
    };
    let (p50, p99) = (delay(0.5), delay(0.99));
    format!(
        "{} devices, {} sent, {} delivered, {} marked, {} duplicates, {} resets, {} reconnects, {} requests made again, delay p50 {p50} ms p99 {p99} ms",
        of(&figures.devices),
        of(&figures.sent),
        of(&figures.delivered),
        of(&figures.marked),
        of(&figures.duplicates),
        of(&figures.resets),
        of(&figures.reconnects),
        of(&figures.again),
    )
}
