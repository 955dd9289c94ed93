//! Fixes that lie in Kafka when ingest starts.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::time::sleep;
use tutti_kafka::tools::{Admin, PartitionReader};
use tutti_load::publisher::Publisher;
use tutti_model::{Fix, location};

use super::rig::{Bench, PATIENCE, TOPIC, applied, fix};
use crate::bench::process::cpu_seconds;
use crate::bench::report::{median, row, say};

/// The number of fixes.
const BACKLOG: u32 = 1_000_000;

impl Bench<'_> {
    /// Measures how fast ingest works off the backlog, beside a consumer that does nothing with it.
    pub(super) async fn backlog(&self) -> anyhow::Result<()> {
        say(&format!("{BACKLOG} fixes that ingest finds in Kafka:"));
        let Some(kafka) = &self.stage.options.kafka else {
            row("not measured: the embedded broker does not keep so many", "(needs --kafka)");
            return Ok(());
        };
        // The topic belongs to this run alone, because records that another run left behind would be read, too.
        let topic = format!("{TOPIC}-{:08x}", rand::random::<u32>());
        let admin = Admin::connect(kafka)?;
        admin.create_topic(&topic, 1, &[]).await?;
        let publisher = Publisher::new(kafka, &topic)?;
        for number in 0..BACKLOG as usize {
            let fix = Fix { media_id: format!("device-{}", number % 20_000), ..fix(number, 0) };
            publisher.send(&fix.media_id, Some(location::to_json(&fix).as_bytes())).await?;
        }
        publisher.flush(PATIENCE).await?;
        let (mut bare, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..self.stage.options.rounds {
            bare.push(consumed(kafka, &topic).await?);
            ours.push(self.carry(&topic).await?);
        }
        let (bare, ours) = (Pace::median(&bare), Pace::median(&ours));
        row("a bare consumer that only counts", &bare.to_string());
        row("ingest", &ours.to_string());
        let (of_time, of_cpu) = (ours.a_second / bare.a_second, ours.a_cpu_second / bare.a_cpu_second);
        row("of the bare consumer's, by CPU", &format!("{of_cpu:.2} (goal at least 0.5)"));
        row("the same by time, each on as many cores as it takes", &format!("{of_time:.2}"));
        Ok(admin.delete_topic(&topic).await?)
    }

    /// Measures how fast a fresh ingest applies the fixes.
    async fn carry(&self, topic: &str) -> anyhow::Result<Pace> {
        self.stage.empty_redis().await?;
        let ingest = self.ingest(topic, "beginning")?;
        let mut first: Option<(f64, Spent)> = None;
        let until = Instant::now() + PATIENCE;
        loop {
            let applied = applied(self.stage, &ingest).await?;
            let spent = Spent::by(ingest.process.pid())?;
            if applied >= f64::from(BACKLOG) {
                let (had, began) = first.context("ingest was too fast to be seen")?;
                return Ok(Pace::of(applied - had, &began, &spent));
            }
            if applied > 0.0 && first.is_none() {
                first = Some((applied, spent));
            }
            ensure!(Instant::now() < until, "only {applied} were applied");
            // The requests are so rare that answering them costs ingest almost nothing.
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The CPU time of a process at one moment.
#[derive(Clone, Copy)]
struct Spent {
    at: Instant,
    /// Seconds of user and system.
    cpu: f64,
}

impl Spent {
    fn by(pid: u32) -> anyhow::Result<Self> {
        Ok(Self { at: Instant::now(), cpu: cpu_seconds(pid)? })
    }
}

/// The number of fixes that a process handles in a second, and in a second of CPU.
struct Pace {
    a_second: f64,
    a_cpu_second: f64,
}

impl Pace {
    fn of(fixes: f64, began: &Spent, ended: &Spent) -> Self {
        Self {
            a_second: fixes / (ended.at - began.at).as_secs_f64(),
            a_cpu_second: fixes / (ended.cpu - began.cpu),
        }
    }

    fn median(all: &[Self]) -> Self {
        Self {
            a_second: median(all.iter().map(|pace| pace.a_second).collect()),
            a_cpu_second: median(all.iter().map(|pace| pace.a_cpu_second).collect()),
        }
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} a second, {:.0} a second of CPU", self.a_second, self.a_cpu_second)
    }
}

/// Measures how fast a consumer reads the fixes and does nothing with them.
async fn consumed(kafka: &str, topic: &str) -> anyhow::Result<Pace> {
    let (kafka, topic) = (kafka.to_owned(), topic.to_owned());
    tokio::task::spawn_blocking(move || consume(&kafka, &topic)).await?
}

fn consume(kafka: &str, topic: &str) -> anyhow::Result<Pace> {
    let reader = PartitionReader::start(kafka, topic, 0)?;
    let mut began: Option<Spent> = None;
    let (mut count, until) = (0, Instant::now() + PATIENCE);
    while count < BACKLOG {
        match reader.poll(Duration::from_millis(100))? {
            Some(_) => {
                if began.is_none() {
                    began = Some(Spent::by(std::process::id())?);
                }
                count += 1;
            }
            None => {
                ensure!(Instant::now() < until, "only {count} came");
            }
        }
    }
    let began = began.context("nothing came")?;
    Ok(Pace::of(f64::from(BACKLOG), &began, &Spent::by(std::process::id())?))
}
