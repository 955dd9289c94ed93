//! The run of the simulation: it starts all devices, sends, and waits until the devices have everything.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rand::Rng as _;
use reqwest::Client;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

use super::device::Device;
use super::figures::Figures;
use super::sent::Sent;
use super::verdict::Verdict;

/// The topic that all devices follow.
pub const TOPIC: &str = "sim-news";
/// One of this many notifications goes to the topic.
const TO_TOPIC: u32 = 20;
/// Streams that are being opened at the same time, at most.
const OPENING: usize = 512;
/// Sends that wait for their answers at the same time, at most.
const SENDING: usize = 512;
/// How long the last sends may take, and then the devices to have everything.
const SETTLE: Duration = Duration::from_secs(15);
/// The time between two comparisons of the devices with what was sent.
const AGAIN: Duration = Duration::from_millis(250);

/// Makes a token of a user (`sub`) that allows a scope.
pub type Tokens = Arc<dyn Fn(&str, &str) -> anyhow::Result<String> + Send + Sync>;

/// What to simulate.
#[derive(Clone)]
pub struct Inboxes {
    /// Base URLs of edges. Devices begin evenly spread over them, and go on at the next. Each request goes to any.
    pub edges: Vec<String>,
    /// The number of users. They are called `sim-0`, `sim-1` and so on.
    pub users: u32,
    /// The number of devices, dealt out to the users in turn.
    pub devices: u32,
    /// Notifications a second.
    pub rate: f64,
    /// Makes a new token for each connection and each send.
    pub tokens: Tokens,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What devices lack.
    pub verdict: Verdict,
    /// All devices.
    pub devices: Vec<Device>,
    /// All notifications, by number.
    pub sent: Vec<Sent>,
}

impl Inboxes {
    /// Connects all devices and sends until `stop`. Then waits until the devices have everything, but not for long.
    ///
    /// # Errors
    /// If a server answers what it must not, such as a refusal of a good token, or if a device hears a notification that
    /// is for another user.
    pub async fn run(
        &self,
        figures: &Arc<Figures>,
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<Outcome> {
        anyhow::ensure!(!self.edges.is_empty(), "inboxes need at least one edge");
        anyhow::ensure!(self.users > 0, "there must be at least one user");
        anyhow::ensure!(self.rate > 0.0 && self.rate.is_finite(), "the rate must be above 0");
        let run = Arc::new(Run {
            inboxes: self.clone(),
            client: Client::builder().connect_timeout(Duration::from_secs(5)).build()?,
            figures: figures.clone(),
            name: Uuid::from_u128(rand::random()).to_string(),
            devices: (0..self.devices).map(|n| Mutex::new(Device::new(n % self.users))).collect(),
            sent: Mutex::default(),
            opening: Semaphore::new(OPENING),
        });
        let (mut devices, mut sending) = (JoinSet::new(), JoinSet::new());
        for number in 0..run.devices.len() {
            devices.spawn(run.clone().live(number));
        }
        run.send_until(stop, &mut sending, &mut devices).await?;
        let settled = async {
            while let Some(answered) = sending.join_next().await {
                answered??;
            }
            loop {
                let verdict = run.verdict();
                if verdict.is_settled() {
                    return anyhow::Ok(verdict);
                }
                sleep(AGAIN).await;
            }
        };
        let settled = tokio::select! {
            settled = timeout(SETTLE, settled) => settled.ok().transpose()?,
            Some(ended) = devices.join_next() => {
                ended??;
                None
            }
        };
        let verdict = settled.unwrap_or_else(|| run.verdict());
        sending.shutdown().await;
        devices.shutdown().await;
        let devices = run.devices.iter().map(|device| std::mem::take(&mut *lock(device))).collect();
        let sent = std::mem::take(&mut *lock(&run.sent));
        Ok(Outcome { verdict, devices, sent })
    }
}

/// The state of a run, which all its tasks share.
pub(super) struct Run {
    pub(super) inboxes: Inboxes,
    pub(super) client: Client,
    pub(super) figures: Arc<Figures>,
    /// A word in each notification of this run, which those of other runs do not have.
    pub(super) name: String,
    pub(super) devices: Vec<Mutex<Device>>,
    /// What was sent, by number. A task that holds the lock of a device never takes this one.
    pub(super) sent: Mutex<Vec<Sent>>,
    /// One permit for each stream that may be opened at the same time.
    pub(super) opening: Semaphore,
}

impl Run {
    /// Starts sends at the rate, each a task in `sending`, until `stop`. A device that ends does so with an error.
    async fn send_until(
        self: &Arc<Self>,
        stop: impl Future<Output = ()>,
        sending: &mut JoinSet<anyhow::Result<()>>,
        devices: &mut JoinSet<anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let Inboxes { users, rate, .. } = self.inboxes;
        let mut stop = std::pin::pin!(stop);
        let began = Instant::now();
        let mut number = 0u32;
        loop {
            let due = began + Duration::from_secs_f64(f64::from(number) / rate);
            tokio::select! {
                () = &mut stop => return Ok(()),
                Some(answered) = sending.join_next() => answered??,
                Some(ended) = devices.join_next() => ended??,
                () = sleep_until(due), if sending.len() < SENDING => {
                    let topic = number % TO_TOPIC == TO_TOPIC - 1;
                    let to = (!topic).then(|| rand::rng().random_range(0..users));
                    lock(&self.sent).push(Sent { to, id: None, began: Instant::now(), answered: None });
                    sending.spawn(self.clone().send(number, to));
                    number += 1;
                }
            }
        }
    }

    fn verdict(&self) -> Verdict {
        let sent = lock(&self.sent);
        Verdict::of(self.inboxes.users, self.devices.iter().map(lock), &sent)
    }

    /// Makes a token of a user that allows a scope.
    pub(super) fn token(&self, sub: &str, scope: &str) -> anyhow::Result<String> {
        (self.inboxes.tokens)(sub, scope).with_context(|| format!("a token of {sub}"))
    }
}

/// Returns the name of a user, by number.
pub(super) fn name_of(user: u32) -> String {
    format!("sim-{user}")
}

/// Locks a mutex. What another task left behind when it panicked is still good.
pub(super) fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
