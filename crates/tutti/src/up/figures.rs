//! What `tutti up` prints while it runs.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use tokio::time::{Instant, interval};
use tutti_kafka::PartitionLabel;
use tutti_service::Readiness;

use super::backends::{PARTITIONS, TOPIC};
use super::services::ServiceMetrics;

/// How long it may take until a fix has come through. After that, what is missing is printed.
const PATIENCE: Duration = Duration::from_secs(30);

/// The figures of the services.
pub(super) struct Figures {
    pub(super) metrics: ServiceMetrics,
    /// Whether taxis are played, so that each edge must come to have some.
    pub(super) replays: bool,
}

impl Figures {
    /// Prints when everything is ready and a fix has come through. Then, on a terminal, prints a line of figures a second,
    /// for ever.
    pub(super) async fn print(&self, services: Vec<(&'static str, Readiness)>) {
        let mut seconds = interval(Duration::from_secs(1));
        let (began, mut ready, mut complained) = (Instant::now(), false, false);
        let (mut records_before, mut deliveries_before) = (0, 0);
        loop {
            seconds.tick().await;
            let waiting: Vec<String> = services
                .iter()
                .filter_map(|(name, readiness)| readiness.check().err().map(|why| format!("{name} {why}")))
                .collect();
            let has_come = !self.replays || self.metrics.edges.iter().all(|edge| edge.devices.get() > 0);
            if waiting.is_empty() && has_come && !ready {
                ready = true;
                println!("Ready.");
            } else if !ready && !complained && began.elapsed() >= PATIENCE {
                complained = true;
                let why = match &*waiting {
                    [] => {
                        "all services run, but no fix has come from Kafka to each edge; --log info says more"
                            .to_owned()
                    }
                    waiting => waiting.join("; "),
                };
                println!("Not ready after {} s: {why}", PATIENCE.as_secs());
            }
            if !std::io::stdout().is_terminal() {
                continue;
            }
            let topic = tutti_ingest::Topic { topic: TOPIC.to_owned() };
            let records = self.metrics.ingest.applied.get_or_create(&topic).get();
            let sum = |of: fn(&tutti_edge::Metrics) -> i64| self.metrics.edges.iter().map(of).sum::<i64>();
            let streams = sum(|m| m.sse.streams.get());
            let deliveries = sum(|m| m.sse.deliveries.get() as i64);
            let devices = self.metrics.edges.iter().map(|m| m.devices.get()).max().unwrap_or(0);
            let lag: i64 = (0..PARTITIONS)
                .map(|partition| PartitionLabel { topic: TOPIC.to_owned(), partition })
                .map(|label| self.metrics.ingest.partition_metrics.lag.get_or_create(&label).get())
                .sum();
            let line = if waiting.is_empty() {
                format!(
                    "{} records/s in   {devices} devices   {streams} streams   {} deliveries/s   lag {lag} records",
                    records - records_before,
                    deliveries - deliveries_before,
                )
            } else {
                waiting.join("; ")
            };
            print!("\r\x1b[2K{line}");
            let _ = std::io::stdout().flush();
            (records_before, deliveries_before) = (records, deliveries);
        }
    }
}
