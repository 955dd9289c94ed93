//! Users with their devices, and a sender that notifies them: each device keeps its inbox, comes back
//! where its stream breaks off, and is held against what was sent.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rand::Rng as _;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

use crate::retry::{jitter, until_answered};
use crate::sse::{Event, Request, Source};

/// The topic for users that all devices follow.
pub const TOPIC: &str = "sim-news";
/// Every so manieth notification goes to the topic.
const TO_TOPIC: u32 = 20;
/// Streams that are being opened in the same moment, at most.
const OPENING: usize = 512;
/// Sends that wait for their answers, at most.
const SENDING: usize = 512;
/// Every so manieth device marks notifications as read, about half of them.
const READS: usize = 3;
/// Within this time after it came.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// How long the last sends may take, and then the devices to have all.
const SETTLE: Duration = Duration::from_secs(15);
/// Between two looks at whether they have.
const AGAIN: Duration = Duration::from_millis(250);

/// Makes a token of a user (`sub`) that allows a scope.
pub type Tokens = Arc<dyn Fn(&str, &str) -> anyhow::Result<String> + Send + Sync>;

/// What to simulate.
#[derive(Clone)]
pub struct Inboxes {
    /// Base URLs of edges: devices begin evenly spread, and go on at the next; each request goes to any.
    pub edges: Vec<String>,
    /// How many users: `sim-0`, `sim-1` and so on.
    pub users: u32,
    /// How many devices, dealt out to the users in turn.
    pub devices: u32,
    /// Notifications a second.
    pub rate: f64,
    /// Where tokens come from: a new one for each connection and each send.
    pub tokens: Tokens,
}

/// What has happened so far.
#[derive(Debug, Default)]
pub struct Figures {
    /// Devices with a stream open now.
    pub devices: AtomicU64,
    /// Notifications sent, and answered.
    pub sent: AtomicU64,
    /// Notifications that came to a device for the first time.
    pub delivered: AtomicU64,
    /// Those that came once more, without a reset before.
    pub duplicates: AtomicU64,
    /// Marked as read.
    pub marked: AtomicU64,
    /// `reset` events.
    pub resets: AtomicU64,
    /// Streams that broke off or did not open.
    pub reconnects: AtomicU64,
    /// Requests that had to be made again.
    pub again: AtomicU64,
    /// Microseconds from a send's answer to each device; 0 where the device was first.
    delays_us: Mutex<Vec<i64>>,
}

impl Figures {
    /// Microseconds from a send's answer to each device, of deliveries from the `from`th on, in order.
    pub fn delays_us(&self, from: usize) -> Vec<i64> {
        lock(&self.delays_us).get(from..).unwrap_or_default().to_vec()
    }
}

/// A notification that was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The user; `None`: the topic.
    pub to: Option<u32>,
    /// The notification's id, once a device or the answer told it.
    pub id: Option<String>,
    /// When it was first tried.
    pub began: Instant,
    /// When the answer came.
    pub answered: Option<Instant>,
}

/// A device, and what it has heard. Notifications of this run go by their number: where they stand in
/// [`Outcome::sent`].
#[derive(Clone, Debug, Default)]
pub struct Device {
    /// Whose it is.
    pub user: u32,
    /// Since when it must get all that is sent.
    pub since: Option<Instant>,
    /// The user's own notifications that it shows, by id, in order, of all runs.
    pub ids: Vec<String>,
    /// How many of the user's are unread, as last told.
    pub unread: u64,
    /// This run's notifications in the order in which they came, the topic's too; after each reset anew.
    pub heard: Vec<Vec<u32>>,
    /// Of each, after which reset it came last.
    known: HashMap<u32, usize>,
    /// This run's notifications that came once more without a reset between.
    pub duplicates: u64,
    /// `reset` events, with their reasons.
    pub resets: Vec<String>,
    /// `status` events.
    pub statuses: Vec<String>,
    /// The last event id.
    pub last_id: String,
}

/// A notification of this run, as a device heard it.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Its number.
    pub number: u32,
    /// Its id.
    pub id: String,
    /// To the user, not to the topic.
    pub own: bool,
    /// How often the device has it now.
    pub times: Times,
}

/// How often a device has a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// It is new.
    Once,
    /// It was there before a reset.
    Anew,
    /// It is there already.
    Again,
}

impl Device {
    /// A device of a user.
    pub fn new(user: u32) -> Self {
        Self { user, heard: vec![Vec::new()], ..Self::default() }
    }

    /// Takes an event in; what it brings of the run with this name.
    ///
    /// # Errors
    /// If its data is not what the event promises.
    pub fn hear(&mut self, event: &Event, run: &str) -> anyhow::Result<Option<Heard>> {
        let data: Value =
            serde_json::from_str(&event.data).with_context(|| format!("{}: {}", event.event, event.data))?;
        let mut heard = None;
        match event.event.as_str() {
            "connected" => self.unread = data["unread"].as_u64().context("a count of unread is missing")?,
            "notification" => heard = self.take(&data, run)?,
            "read" | "deleted" => {
                self.unread = data["unread"].as_u64().context("a count of unread is missing")?;
                let gone = data["ids"].as_array().context("ids are missing")?;
                if event.event == "deleted" {
                    self.ids.retain(|id| !gone.iter().any(|gone| gone == id.as_str()));
                }
            }
            "reset" => {
                self.ids.clear();
                self.heard.push(Vec::new());
                self.resets.push(data["reason"].as_str().unwrap_or_default().to_owned());
            }
            "status" => self.statuses.push(data["state"].as_str().unwrap_or_default().to_owned()),
            // The next connection has another token.
            "end" => {}
            other => anyhow::bail!("an unknown event {other}"),
        }
        if !event.id.is_empty() {
            // Without an id it would come back as a new one, and be told of what comes then.
            self.since.get_or_insert_with(Instant::now);
            self.last_id.clone_from(&event.id);
        }
        Ok(heard)
    }

    fn take(&mut self, data: &Value, run: &str) -> anyhow::Result<Option<Heard>> {
        let id = data["id"].as_str().context("a notification without an id")?;
        let own = data["topic"].is_null();
        if own {
            self.unread = data["unread"].as_u64().context("a count of unread is missing")?;
            self.ids.push(id.to_owned());
        }
        if data["data"]["run"] != run {
            return Ok(None);
        }
        let number = data["data"]["number"].as_u64().and_then(|number| u32::try_from(number).ok());
        let number = number.context("a notification without its number")?;
        let resets = self.resets.len();
        let times = match self.known.insert(number, resets) {
            None => Times::Once,
            Some(before) if before < resets => Times::Anew,
            Some(_) => Times::Again,
        };
        self.duplicates += u64::from(times == Times::Again);
        if let Some(heard) = self.heard.last_mut() {
            heard.push(number);
        }
        Ok(Some(Heard { number, id: id.to_owned(), own, times }))
    }

    /// Whether it ever heard a notification of this run.
    pub fn has(&self, number: u32) -> bool {
        self.known.contains_key(&number)
    }
}

/// What devices lack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Notifications that a device must have and has not, of all devices.
    pub missing: u64,
    /// Notifications that came after one of the same inbox that was sent when they had been answered.
    pub out_of_order: u64,
    /// Users whose devices show different counts of unread.
    pub unread_apart: u64,
}

impl Verdict {
    /// Holds devices against what was sent; what had no answer is not asked for.
    pub fn of(users: u32, devices: impl Iterator<Item: Deref<Target = Device>>, sent: &[Sent]) -> Self {
        let mut to_users = vec![Vec::new(); users as usize];
        let mut to_topic = Vec::new();
        for (number, one) in (0u32..).zip(sent).filter(|(_, one)| one.answered.is_some()) {
            match one.to {
                Some(user) => to_users[user as usize].push(number),
                None => to_topic.push(number),
            }
        }
        let mut verdict = Self::default();
        let mut unread: HashMap<u32, (u64, bool)> = HashMap::new();
        for device in devices {
            let Some(since) = device.since else { continue };
            let due = to_users[device.user as usize].iter().chain(&to_topic);
            let due = due.filter(|number| sent[**number as usize].began >= since);
            verdict.missing += due.filter(|number| !device.has(**number)).count() as u64;
            verdict.out_of_order += device.heard.iter().map(|heard| out_of_order(heard, sent)).sum::<u64>();
            let (count, apart) = unread.entry(device.user).or_insert((device.unread, false));
            *apart |= *count != device.unread;
        }
        verdict.unread_apart = unread.values().filter(|(_, apart)| *apart).count() as u64;
        verdict
    }

    /// Nothing is missing.
    fn is_settled(&self) -> bool {
        self.missing == 0 && self.unread_apart == 0
    }
}

/// What was sent only after another's answer comes after it; what was sent side by side may come in any
/// order. The user's inbox and the topic's are two.
fn out_of_order(heard: &[u32], sent: &[Sent]) -> u64 {
    let mut newest: [Option<Instant>; 2] = [None; 2];
    let mut late = 0;
    for one in heard.iter().filter_map(|number| sent.get(*number as usize)) {
        let newest = &mut newest[usize::from(one.to.is_none())];
        let behind = one.answered.zip(*newest).is_some_and(|(answered, newest)| answered < newest);
        late += u64::from(behind);
        *newest = (*newest).max(Some(one.began));
    }
    late
}

/// What has become of it.
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
    /// Connects all devices and sends until `stop`; then waits, but not for long, until they have all.
    ///
    /// # Errors
    /// If a server answers what it must not, as a refusal of a good token, or tells a device of
    /// another's notification.
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
        let mut devices = JoinSet::new();
        for number in 0..run.devices.len() {
            devices.spawn(run.clone().live(number));
        }
        let mut sending = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        let began = Instant::now();
        let mut number = 0u32;
        loop {
            let due = began + Duration::from_secs_f64(f64::from(number) / self.rate);
            tokio::select! {
                () = &mut stop => break,
                Some(answered) = sending.join_next() => answered??,
                Some(ended) = devices.join_next() => ended??,
                () = sleep_until(due), if sending.len() < SENDING => {
                    let topic = number % TO_TOPIC == TO_TOPIC - 1;
                    let to = (!topic).then(|| rand::rng().random_range(0..self.users));
                    lock(&run.sent).push(Sent { to, id: None, began: Instant::now(), answered: None });
                    sending.spawn(run.clone().send(number, to));
                    number += 1;
                }
            }
        }
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

struct Run {
    inboxes: Inboxes,
    client: Client,
    figures: Arc<Figures>,
    /// Tells this run's notifications from those of others.
    name: String,
    devices: Vec<Mutex<Device>>,
    /// By number. Who holds a device does not lock it.
    sent: Mutex<Vec<Sent>>,
    opening: Semaphore,
}

impl Run {
    fn verdict(&self) -> Verdict {
        let sent = lock(&self.sent);
        Verdict::of(self.inboxes.users, self.devices.iter().map(lock), &sent)
    }

    fn token(&self, sub: &str, scope: &str) -> anyhow::Result<String> {
        (self.inboxes.tokens)(sub, scope).with_context(|| format!("a token of {sub}"))
    }

    /// A device's life: it connects again wherever its stream breaks off.
    async fn live(self: Arc<Self>, number: usize) -> anyhow::Result<()> {
        let Inboxes { edges, .. } = &self.inboxes;
        let name = Uuid::from_u128(rand::random());
        let mut marks = JoinSet::new();
        for edge in edges.iter().cycle().skip(number % edges.len()) {
            let (user, last_id) = {
                let device = lock(&self.devices[number]);
                (name_of(device.user), device.last_id.clone())
            };
            let request = Request {
                url: format!("{edge}/v1/inbox/stream?topics={TOPIC}&device={name}"),
                last_event_id: (!last_id.is_empty()).then_some(last_id),
                token: Some(self.token(&user, "inbox:topics")?),
            };
            let opening = {
                let _one = self.opening.acquire().await?;
                timeout(Duration::from_secs(10), Source::open_by(&self.client, &request)).await
            };
            let mut retry = None;
            if let Ok(Ok(mut source)) = opening {
                self.figures.devices.fetch_add(1, Ordering::Relaxed);
                let heard = self.listen(number, &mut source, &mut marks).await;
                self.figures.devices.fetch_sub(1, Ordering::Relaxed);
                heard?;
                retry = source.retry();
            }
            self.figures.reconnects.fetch_add(1, Ordering::Relaxed);
            // All who were cut off at once do not come back at once.
            let wait = retry.map_or_else(jitter, |retry| retry.mul_f64(rand::rng().random_range(0.2..1.0)));
            sleep(wait).await;
        }
        Ok(())
    }

    /// Follows a stream until it breaks off.
    async fn listen(
        self: &Arc<Self>,
        number: usize,
        source: &mut Source,
        marks: &mut JoinSet<anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                event = source.next() => {
                    let Ok(Some(event)) = event else { return Ok(()) };
                    let own = self.hear(number, &event)?;
                    if let Some((user, id)) = own.filter(|_| number.is_multiple_of(READS) && rand::random()) {
                        marks.spawn(self.clone().mark(user, id));
                    }
                }
                Some(marked) = marks.join_next() => marked??,
            }
        }
    }

    /// Takes an event in; a new notification of the user's own comes back, with the user.
    fn hear(&self, number: usize, event: &Event) -> anyhow::Result<Option<(u32, String)>> {
        let now = Instant::now();
        let (heard, user, since) = {
            let mut device = lock(&self.devices[number]);
            (device.hear(event, &self.name)?, device.user, device.since)
        };
        if event.event == "reset" {
            self.figures.resets.fetch_add(1, Ordering::Relaxed);
        }
        let Some(Heard { number, id, own, times }) = heard else { return Ok(None) };
        let (began, answered) = {
            let mut sent = lock(&self.sent);
            let sent = sent.get_mut(number as usize).context("a notification that nobody sent")?;
            anyhow::ensure!(sent.to == own.then_some(user), "a notification to another: {}", event.data);
            sent.is_called(&id)?;
            (sent.began, sent.answered)
        };
        match times {
            Times::Once => {
                self.figures.delivered.fetch_add(1, Ordering::Relaxed);
                // After a reset a device hears of what was sent before it came.
                if since.is_some_and(|since| began >= since) {
                    let delay = answered.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
                    lock(&self.figures.delays_us).push(delay.as_micros() as i64);
                }
            }
            Times::Anew => {}
            Times::Again => {
                self.figures.duplicates.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok((own && times == Times::Once).then_some((user, id)))
    }

    /// Sends one, and tries again with the same key until there is an answer.
    async fn send(self: Arc<Self>, number: u32, to: Option<u32>) -> anyhow::Result<()> {
        let recipients = match to {
            Some(user) => json!({ "users": [name_of(user)] }),
            None => json!({ "topic": TOPIC }),
        };
        let body = json!({
            "to": recipients,
            "category": "sim",
            "title": format!("Number {number}"),
            "data": { "run": self.name, "number": number },
        })
        .to_string();
        let key = format!("{}-{number}", self.name);
        let token = self.token("sim", "notifications:send")?;
        let request = |edge: &str| {
            let post = self.client.post(format!("{edge}/v1/notifications"));
            post.bearer_auth(&token).header("idempotency-key", &key).body(body.clone())
        };
        let good = [StatusCode::ACCEPTED];
        let answer = until_answered(&self.inboxes.edges, &self.figures.again, request, &good).await?;
        let now = Instant::now();
        let id = answer["id"].as_str().context("a send without an id")?;
        let mut sent = lock(&self.sent);
        let sent = &mut sent[number as usize];
        sent.is_called(id)?;
        sent.answered = Some(now);
        self.figures.sent.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Marks one as read, after a while; it may have gone meanwhile.
    async fn mark(self: Arc<Self>, user: u32, id: String) -> anyhow::Result<()> {
        sleep(READ_WITHIN.mul_f64(rand::random())).await;
        let token = self.token(&name_of(user), "")?;
        let request = |edge: &str| self.client.post(format!("{edge}/v1/inbox/{id}/read")).bearer_auth(&token);
        let good = [StatusCode::OK, StatusCode::NOT_FOUND];
        until_answered(&self.inboxes.edges, &self.figures.again, request, &good).await?;
        self.figures.marked.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Sent {
    /// All who know its id know the same.
    fn is_called(&mut self, id: &str) -> anyhow::Result<()> {
        let known = self.id.get_or_insert_with(|| id.to_owned());
        anyhow::ensure!(known == id, "one notification has two ids: {known} and {id}");
        Ok(())
    }
}

/// A user's name.
fn name_of(user: u32) -> String {
    format!("sim-{user}")
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &Value, id: &str) -> Event {
        Event { event: name.into(), data: data.to_string(), id: id.into(), retry: None }
    }

    fn notification(number: u32, id: &str) -> Event {
        let data = json!({
            "id": format!("n{number}"), "unread": number, "data": { "run": "here", "number": number },
        });
        event("notification", &data, id)
    }

    #[test]
    fn what_is_lost_comes_twice_or_late_is_counted() {
        let mut device = Device::new(0);
        let connected = event("connected", &json!({ "device": "d", "unread": 0 }), "u.AA");
        device.hear(&connected, "here").unwrap();
        let since = device.since.unwrap();
        let sent: Vec<Sent> = (0..4u32)
            .map(|n| {
                let began = since + Duration::from_secs(n.into());
                Sent { to: Some(0), id: None, began, answered: Some(began + Duration::from_millis(500)) }
            })
            .collect();
        for number in [0, 2, 1, 2] {
            device.hear(&notification(number, "u.AB"), "here").unwrap();
        }
        let foreign = json!({ "id": "x", "unread": 9, "data": { "run": "elsewhere", "number": 3 } });
        assert!(device.hear(&event("notification", &foreign, ""), "here").unwrap().is_none());
        assert_eq!((device.duplicates, device.unread), (1, 9));
        assert_eq!(device.ids, ["n0", "n2", "n1", "n2", "x"]);
        let verdict = Verdict::of(1, [&device].into_iter(), &sent);
        assert_eq!(verdict, Verdict { missing: 1, out_of_order: 1, unread_apart: 0 });

        device.hear(&event("reset", &json!({ "reason": "gap" }), "0"), "here").unwrap();
        let heard = device.hear(&notification(2, "u.AC"), "here").unwrap().unwrap();
        assert_eq!((heard.times, device.duplicates), (Times::Anew, 1));
        assert_eq!(device.ids, ["n2"]);
        let other = Device { unread: 7, ..device.clone() };
        let verdict = Verdict::of(1, [&device, &other].into_iter(), &sent[..3]);
        assert_eq!(verdict, Verdict { missing: 0, out_of_order: 2, unread_apart: 1 });
    }
}
