//! The task that follows feeds: it reacts to messages, reconnects and the clock.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use fred::prelude::*;
use fred::types::Message;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, info, warn};

use super::event::Event;
use crate::chain::{Chain, RecordCheck};
use crate::held_back::HeldBackNote;
use crate::keys::channel;
use crate::metrics::FollowMetrics;
use crate::record::Record;
use crate::redis::{Connection, connect};

/// How often the heads are read.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Follows feeds over one connection.
pub(super) struct Follower {
    pub(super) feeds: Vec<FeedState>,
    by_channel: HashMap<String, usize>,
    /// A feed of which nothing was delivered yet begins at its newest record, not at its oldest.
    pub(super) from_newest: bool,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) metrics: FollowMetrics,
    /// Polls in a row that failed, in whole or in part.
    pub(super) failed_polls: u32,
    /// A poll has succeeded, so every feed was refilled once.
    pub(super) has_begun: bool,
}

/// What the follower knows of one feed.
pub(super) struct FeedState {
    pub(super) name: String,
    pub(super) chain: Chain,
    /// The feed must be subscribed to and refilled at the next poll.
    pub(super) is_stale: bool,
    pub(super) held_back: HeldBackNote,
}

impl FeedState {
    pub(super) fn new(name: &str, chain: Chain) -> Self {
        Self { name: name.to_owned(), chain, is_stale: true, held_back: HeldBackNote::default() }
    }
}

impl Follower {
    pub(super) fn new(
        feeds: Vec<FeedState>,
        from_newest: bool,
        events: mpsc::Sender<Event>,
        metrics: FollowMetrics,
    ) -> Self {
        let by_channel = feeds.iter().enumerate().map(|(n, feed)| (channel(&feed.name), n)).collect();
        Self { feeds, by_channel, from_newest, events, metrics, failed_polls: 0, has_begun: false }
    }

    /// Follows for ever, with a new connection whenever the driver gives one up.
    pub(super) async fn run(mut self, url: String, mut connection: Connection) {
        loop {
            self.follow(&mut connection).await;
            warn!("the Redis client ended by itself; making a new one");
            sleep(POLL_INTERVAL).await;
            match connect(&url) {
                Ok(new) => connection = new,
                Err(error) => warn!(%error, "a new Redis client cannot be made"),
            }
            self.mark_all_stale();
        }
    }

    /// Follows until the driver gives the connection up.
    async fn follow(&mut self, connection: &mut Connection) {
        let client = connection.client.clone();
        let mut messages = client.message_rx();
        let mut reconnects = client.reconnect_rx();
        let mut polls = interval(POLL_INTERVAL);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = connection.ended() => return,
                reconnected = reconnects.recv() => {
                    if reconnected.is_ok() && self.has_begun {
                        self.metrics.reconnects.inc();
                        debug!("reconnected to Redis");
                    }
                    // One refill serves several reconnects in a row.
                    while reconnects.try_recv().is_ok() {}
                    self.mark_all_stale();
                    // A Redis that answers no command, for example while it loads, would be asked in a loop.
                    if self.failed_polls == 0 {
                        self.poll(&client).await;
                    }
                }
                message = messages.recv() => match message {
                    Ok(message) => self.receive(&client, message).await,
                    Err(RecvError::Lagged(missed)) => {
                        self.metrics.overflows.inc();
                        info!(missed, "the receive buffer of the subscription overflowed; refilling from the logs");
                        self.mark_all_stale();
                        self.poll(&client).await;
                    }
                    Err(RecvError::Closed) => return,
                },
                _ = polls.tick() => self.poll(&client).await,
            }
        }
    }

    async fn receive(&mut self, client: &Client, message: Message) {
        let Some(&feed) = self.by_channel.get(&*message.channel) else { return };
        let record = message.value.convert::<Bytes>().ok().and_then(Record::decode);
        let Some(record) = record else {
            warn!(
                feed = self.feeds[feed].name,
                "a message that holds no record was published; it is ignored"
            );
            return;
        };
        match self.feeds[feed].chain.offer(&record, false) {
            RecordCheck::Next => self.deliver(feed, record).await,
            RecordCheck::Old => {}
            // Before the first refill every record seems to leave a gap. That refill is still to come.
            RecordCheck::Gap if self.feeds[feed].is_stale => {}
            RecordCheck::Gap => {
                self.metrics.refills.inc();
                if let Err(error) = self.refill(client, feed).await {
                    warn!(%error, "a feed could not be refilled; trying again at the next poll");
                    self.feeds[feed].is_stale = true;
                }
            }
        }
    }

    pub(super) async fn deliver(&mut self, feed: usize, record: Record) {
        self.metrics.records.inc();
        let _ = self.events.send(Event::Record { feed, record }).await;
    }

    fn mark_all_stale(&mut self) {
        self.feeds.iter_mut().for_each(|feed| feed.is_stale = true);
    }
}
