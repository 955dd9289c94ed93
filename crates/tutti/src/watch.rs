//! `tutti watch`: follows the stream of a map in the terminal.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tutti_load::sse::{Request, Source};
use tutti_load::watch::{Viewer, quantile};

/// Follows streams of the same map, the next one where one breaks off, and prints a line a second.
///
/// # Errors
/// If there is one URL only, and its stream does not open at first.
pub async fn watch(urls: &[String], token: Option<String>) -> anyhow::Result<()> {
    let mut viewer = Viewer::default();
    let mut streams = 0u64;
    for url in urls.iter().cycle() {
        let last_event_id = (!viewer.last_id.is_empty()).then(|| viewer.last_id.clone());
        let request = Request { url: url.clone(), last_event_id, token: token.clone() };
        let mut wait = Duration::from_secs(1);
        match Source::open(&request).await {
            Err(error) if streams == 0 && urls.len() == 1 => return Err(error),
            Err(error) => eprintln!("{error:#}; trying the next"),
            Ok(mut source) => {
                streams += 1;
                println!(
                    "# {url}{}",
                    if viewer.last_id.is_empty() { "" } else { ", going on from the last id" }
                );
                if let Err(error) = follow(&mut source, &mut viewer).await {
                    eprintln!("{error:#}");
                }
                wait = source.retry().unwrap_or(wait);
                if let Some(reason) = &viewer.end {
                    println!("# the server says not to come back: {reason}");
                    return Ok(());
                }
            }
        }
        sleep(wait).await;
    }
    Ok(())
}

async fn follow(source: &mut Source, viewer: &mut Viewer) -> anyhow::Result<()> {
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut events, mut since) = (0u32, Instant::now());
    loop {
        tokio::select! {
            event = source.next() => match event? {
                Some(event) => {
                    viewer.hear(&event)?;
                    events += 1;
                }
                None => return Ok(()),
            },
            _ = seconds.tick() => {
                let past = since.elapsed().as_secs_f64();
                let mut delays = std::mem::take(&mut viewer.delays_ms);
                let fixes = delays.len() as f64 / past;
                let at = |delays: &mut [i64], share| {
                    quantile(delays, share).map_or("-".to_owned(), |ms| ms.to_string())
                };
                println!(
                    "{} devices  {:.0} events/s  {fixes:.0} fixes/s  delay p50 {} ms p99 {} ms  {} resets  {} steps back  {}",
                    viewer.devices.len(),
                    f64::from(std::mem::take(&mut events)) / past,
                    at(&mut delays, 0.5),
                    at(&mut delays, 0.99),
                    viewer.resets.len(),
                    viewer.steps_back,
                    viewer.statuses.last().map_or("", String::as_str),
                );
                since = Instant::now();
            }
        }
    }
}
