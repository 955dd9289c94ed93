//! Devices of users, and a producer of notifications.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tutti_kafka::{ClientSettings, Producer, ProducerOptions, ProducerRecord};

use super::device::Device;
use crate::bench::stage::{Running, SECRET, Stage};
use crate::bench::times::Times;
use crate::token::sign;

/// The topic of notifications.
pub(in crate::bench) const TOPIC: &str = "bench-notifications";
/// The number of notifications that can be told apart, and noted.
const SLOTS: usize = 1 << 20;
/// The lifetime of the devices' tokens.
pub(super) const DAY: Duration = Duration::from_secs(86_400);

pub(super) struct Bench<'a> {
    pub(super) stage: &'a Stage,
    pub(super) producer: Producer,
    pub(super) times: Arc<Times>,
}

impl<'a> Bench<'a> {
    /// Connects the producer.
    pub(super) fn start(stage: &'a Stage) -> anyhow::Result<Self> {
        Ok(Self { stage, producer: producer(&stage.kafka())?, times: Times::new(SLOTS) })
    }

    /// Opens the streams of all devices at once, from their last ids. Returns when all are live.
    pub(super) async fn open_all(
        &self,
        edge: &Running,
        ids: Vec<String>,
    ) -> anyhow::Result<JoinSet<(usize, String)>> {
        let mut devices = JoinSet::new();
        let wanted = self.times.live.load(Ordering::Relaxed) + ids.len();
        // The kernel's queue of connections is shorter than the number of devices.
        let turns = Arc::new(Semaphore::new(2000));
        for (n, last_id) in ids.into_iter().enumerate() {
            let token = sign(SECRET, &format!("u-{n}"), "inbox:topics", DAY)?;
            let (url, times, turns) = (edge.url.clone(), self.times.clone(), turns.clone());
            devices.spawn(async move {
                let turn = turns.acquire_owned().await;
                let device = Device::open(&url, &token, &last_id).await;
                drop(turn);
                match device {
                    Ok(device) => (n, device.read(&times).await),
                    Err(_) => (n, String::new()),
                }
            });
        }
        let until = Instant::now() + Duration::from_secs(120);
        while self.times.live.load(Ordering::Relaxed) < wanted {
            ensure!(Instant::now() < until, "only {} are live", self.times.live.load(Ordering::Relaxed));
            sleep(Duration::from_millis(10)).await;
        }
        Ok(devices)
    }

    pub(super) async fn send(&self, number: usize, key: &str, to: &serde_json::Value) -> anyhow::Result<()> {
        let value = notification(number, to);
        write(&self.producer, key, &value).await.context("Kafka does not take a notification")?;
        self.times.acknowledged[number].store(self.times.now(), Ordering::Relaxed);
        Ok(())
    }

    /// Waits until ingest has its partitions. What is sent before that comes late.
    pub(super) async fn until_carried(&self) -> anyhow::Result<()> {
        let before = self.times.told.load(Ordering::Relaxed);
        let until = Instant::now() + Duration::from_secs(60);
        let mut number = SLOTS - 1;
        while self.times.told.load(Ordering::Relaxed) < before + 30 {
            ensure!(Instant::now() < until, "no notification arrives");
            for key in 0..10 {
                let to = json!({ "users": [format!("u-{key}")] });
                self.send(number, &format!("u-{key}"), &to).await?;
                number -= 1;
            }
            sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }
}

fn producer(kafka: &str) -> anyhow::Result<Producer> {
    let settings = ClientSettings { brokers: kafka.to_owned(), ..ClientSettings::default() };
    let options = ProducerOptions {
        client_id: "tutti-bench",
        delivery_timeout: Some(Duration::from_secs(10)),
        linger: Duration::from_millis(1),
    };
    Ok(Producer::start(&settings, &options)?)
}

/// Writes a notification, and waits until Kafka has it.
pub(super) async fn write(producer: &Producer, key: &str, value: &str) -> Result<(), tutti_kafka::Error> {
    let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
    producer.send(&ProducerRecord { topic: TOPIC, key, value, ..ProducerRecord::default() }).await
}

pub(super) fn notification(number: usize, to: &serde_json::Value) -> String {
    json!({
        "id": format!("n-{number}"),
        "to": to,
        "category": "order",
        "title": "Your order is on its way",
        "body": "It left our warehouse a minute ago, and will be with you by noon.",
        "data": { "order": 4711, "carrier": "bike" },
    })
    .to_string()
}
