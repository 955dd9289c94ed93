//! `tutti up`: everything in one process, for developers.
//!
//! [`backends`] starts an embedded broker and a private Redis, unless the developer brings Kafka or Redis. [`services`]
//! starts ingest, the queue, notify and two edges as tasks, each configured by variables as its own process would be.
//! [`demo`] plays recorded taxis, makes a waiting room and sends notifications. [`greeting`] prints what to try, and
//! [`figures`] a line a second.

mod backends;
mod demo;
mod figures;
mod greeting;
mod options;
mod services;

use tutti_load::publisher::Publisher;
use tutti_load::taxis::Taxis;
use tutti_service::logs::Logs;
use tutti_service::{raise_file_limit, stop_signal};

use backends::Backends;
use demo::{notify_users, open_room, play};
use figures::Figures;
use greeting::print_greeting;
use options::Ports;
use services::Services;

pub use backends::TOPIC;
pub use options::Options;

/// Runs until Ctrl-C or SIGTERM.
///
/// # Errors
/// If a port is in use, something is not installed, or a service ends by itself.
pub async fn up(mut options: Options) -> anyhow::Result<()> {
    // `KAFKA= make up` asks for the embedded broker.
    options.kafka = options.kafka.filter(|brokers| !brokers.is_empty());
    options.redis = options.redis.filter(|url| !url.is_empty());
    let logs = Logs { level: options.log.clone(), json: false };
    logs.start().map_err(|why| anyhow::anyhow!("--log {}: {why}", options.log))?;
    raise_file_limit();
    let ports = Ports::new(options.port_base)?;
    ports.check(options.kafka.is_none())?;
    let backends = Backends::start(&options, &ports).await?;
    let (mut services, metrics) = Services::start(&options, &ports, &backends).await?;

    let (first, second) = (services.urls[0].clone(), services.urls[1].clone());
    let stop = services.stop.clone();
    services.tasks.spawn(open_room(first, options.secret.clone(), stop.clone()));
    let mut vehicles = 0;
    if !options.no_replay {
        services.tasks.spawn(notify_users(second, options.secret.clone(), stop.clone()));
        let taxis = Taxis::load()?;
        vehicles = taxis.vehicles();
        services.tasks.spawn(play(taxis, Publisher::new(&backends.kafka, TOPIC)?, stop));
    }
    print_greeting(&options, &ports, &backends, &services.urls, vehicles);

    let figures = Figures { metrics, replays: !options.no_replay };
    let ready = services.ready.clone();
    let ended = tokio::select! {
        Some(ended) = services.tasks.join_next() => Some(ended),
        _ = stop_signal() => None,
        () = figures.print(ready) => unreachable!("figures are printed until the end"),
    };
    println!("\nstopping");
    if let Some(ended) = ended {
        services.stop.cancel();
        ended?.map_err(|failure| anyhow::anyhow!("{failure}"))?;
    }
    services.stop().await;
    Ok(())
}
