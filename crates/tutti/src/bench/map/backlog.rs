//! What lies in Kafka when ingest starts.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rdkafka::admin::AdminOptions;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::sleep;
use tutti_load::publisher::Publisher;
use tutti_model::{Fix, location};

use super::{Bench, PATIENCE, TOPIC, admin, applied, create_topic, fix, row, say};

/// So many fixes.
const BACKLOG: u32 = 300_000;

impl Bench<'_> {
    /// How fast ingest carries it, beside a consumer that does nothing with it.
    pub(super) async fn backlog(&self) -> anyhow::Result<()> {
        say(&format!("{BACKLOG} fixes that ingest finds in Kafka:"));
        let Some(kafka) = &self.stage.options.kafka else {
            row("not measured: the embedded broker does not keep so many", "(needs --kafka)");
            return Ok(());
        };
        // Of this run only: what another left behind would be read too.
        let topic = format!("{TOPIC}-{:08x}", rand::random::<u32>());
        create_topic(self.stage, &topic).await?;
        let publisher = Publisher::new(kafka, &topic)?;
        for number in 0..BACKLOG as usize {
            let fix = Fix { media_id: format!("device-{}", number % 20_000), ..fix(number, 0) };
            publisher.send(&fix.media_id, Some(location::to_json(&fix).as_bytes())).await?;
        }
        publisher.flush(PATIENCE).await?;
        let bare = self.stage.median(async || consumed(kafka, &topic).await).await?;
        row("a bare consumer that only counts", &format!("{bare:.0} a second"));
        let ours = self.stage.median(async || self.carry(&topic).await).await?;
        row("ingest", &format!("{ours:.0} a second, {:.2} of it (goal 0.5)", ours / bare));
        admin(self.stage)?.delete_topics(&[topic.as_str()], &AdminOptions::new()).await?;
        Ok(())
    }

    /// Fixes a second that a fresh ingest applies.
    async fn carry(&self, topic: &str) -> anyhow::Result<f64> {
        self.stage.empty_redis().await?;
        let ingest = self.ingest(topic, "beginning")?;
        let mut first: Option<(Instant, f64)> = None;
        let until = Instant::now() + PATIENCE;
        loop {
            let (now, applied) = (Instant::now(), applied(self.stage, &ingest).await?);
            if applied >= f64::from(BACKLOG) {
                let (began, had) = first.context("ingest was too fast to be seen")?;
                return Ok((applied - had) / now.duration_since(began).as_secs_f64());
            }
            if applied > 0.0 && first.is_none() {
                first = Some((now, applied));
            }
            ensure!(now < until, "only {applied} were applied");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Fixes a second that a consumer reads and does nothing with.
async fn consumed(kafka: &str, topic: &str) -> anyhow::Result<f64> {
    let (kafka, topic) = (kafka.to_owned(), topic.to_owned());
    tokio::task::spawn_blocking(move || consume(&kafka, &topic)).await?
}

fn consume(kafka: &str, topic: &str) -> anyhow::Result<f64> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka).set("group.id", "bench").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create()?;
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&from)?;
    let mut began: Option<Instant> = None;
    let (mut count, until) = (0, Instant::now() + PATIENCE);
    while count < BACKLOG {
        match consumer.poll(Duration::from_millis(100)) {
            Some(message) => {
                message?;
                began.get_or_insert_with(Instant::now);
                count += 1;
            }
            None => {
                ensure!(Instant::now() < until, "only {count} came");
            }
        }
    }
    Ok(f64::from(BACKLOG) / began.context("nothing came")?.elapsed().as_secs_f64())
}
