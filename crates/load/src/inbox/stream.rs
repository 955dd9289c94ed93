//! The stream of one device.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use rand::Rng as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::device::{Heard, Times};
use super::run::{Inboxes, Run, TOPIC, lock, name_of};
use crate::retry::jitter;
use crate::sse::{Event, Request, Source};

/// One of this many devices marks notifications as read, about half of those that it hears.
const READS: usize = 3;

impl Run {
    /// Follows the stream of a device for ever: where the stream breaks off, the device connects at the next edge.
    pub(super) async fn live(self: Arc<Self>, number: usize) -> anyhow::Result<()> {
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
            // Devices that were cut off at the same moment must not come back at the same moment.
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

    /// Takes an event in. Returns the user and the id of a notification that is new and sent to the user.
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
                // After a reset a device also hears what was sent before it connected.
                if since.is_some_and(|since| began >= since) {
                    let delay = answered.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
                    self.figures.add_delay(delay);
                }
            }
            Times::Anew => {}
            Times::Again => {
                self.figures.duplicates.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok((own && times == Times::Once).then_some((user, id)))
    }
}
