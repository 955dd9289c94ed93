//! Following feeds: subscribe, read head and log, go live; refill whatever is missing.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use fred::prelude::*;
use fred::types::Message;
use futures_util::future::join_all;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use crate::chain::{Chain, HeadCheck, RecordCheck};
use crate::error::Error;
use crate::held_back::{self, Notice};
use crate::keys::{channel, head_key, log_key};
use crate::metrics::FollowMetrics;
use crate::record::{Position, Record};
use crate::redis::{Connection, connect};

/// Heads are asked for this often.
const POLL: Duration = Duration::from_secs(1);
/// Events that wait for who follows; when it is full the follower waits, and then refills.
const EVENTS_WAITING: usize = 1024;
/// A page of a refill holds about this many bytes at most.
const PAGE_BYTES: usize = 4 << 20;
/// Polls that may fail in a row before the connection is made anew.
const FAILED_POLLS: u32 = 3;

/// What following yields. `feed` counts in the order of the names given to [`follow`].
#[derive(Debug)]
pub enum Event {
    /// The next record of a feed.
    Record {
        /// Which feed.
        feed: usize,
        /// The record.
        record: Record,
    },
    /// Records of this feed are missing for good; its log follows from its oldest record on.
    Reset {
        /// Which feed.
        feed: usize,
        /// Why.
        reason: ResetReason,
    },
    /// Each feed's head as Redis had it at a poll; a record up to a head may still be on its way.
    Heads(Vec<Head>),
    /// How many records for this feed lie in Kafka and cannot be read yet has changed; 0 at first.
    HeldBack {
        /// Which feed.
        feed: usize,
        /// Records, some seconds ago.
        records: u64,
    },
}

/// What a poll told of a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// Its newest record, if it has one; all before it is there or on its way.
    Known(Option<Position>),
    /// Nothing: of a Cluster its node is away, or it is moving.
    Unknown,
}

impl Head {
    /// Its newest record, where that is known.
    pub fn known(self) -> Option<Option<Position>> {
        match self {
            Self::Known(position) => Some(position),
            Self::Unknown => None,
        }
    }
}

/// Why a feed could not be followed without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetReason {
    /// Redis came back empty, or the feed was deleted.
    NewEpoch,
    /// Redis came back with an older state and went on from there.
    HistoryChanged,
    /// The log no longer reaches back to the last record held.
    Trimmed,
}

impl ResetReason {
    /// A word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NewEpoch => "new_epoch",
            Self::HistoryChanged => "history_changed",
            Self::Trimmed => "trimmed",
        }
    }
}

/// The events, and the task that makes them, which ends when this is dropped.
pub struct Following {
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
}

impl Following {
    /// The next event; while Redis is away there is none. `None` if the task that makes them ended,
    /// which it should not: follow anew.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// The next events: the first, and so many in all of those that are there with it. None if the task
    /// that makes them ended. May be given up half-way.
    pub async fn next_few(&mut self, most: usize) -> Vec<Event> {
        let mut events = Vec::new();
        self.events.recv_many(&mut events, most).await;
        events
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Follows feeds from the oldest record that each log has.
///
/// # Errors
/// Those of [`connect`]; what Redis does later is waited out.
pub fn follow(url: &str, names: &[String], metrics: FollowMetrics) -> Result<Following, Error> {
    start(url, names.iter().map(|name| (name.clone(), Chain::from_oldest())).collect(), false, metrics)
}

/// Follows feeds from the newest record that each log has, that one included; so too after a reset.
/// For who knows otherwise what was before.
///
/// # Errors
/// As [`follow`].
pub fn follow_newest(url: &str, names: &[String], metrics: FollowMetrics) -> Result<Following, Error> {
    start(url, names.iter().map(|name| (name.clone(), Chain::from_oldest())).collect(), true, metrics)
}

/// Follows one feed from the record after `position`.
///
/// # Errors
/// As [`follow`].
pub fn follow_from(
    url: &str,
    name: &str,
    position: Position,
    metrics: FollowMetrics,
) -> Result<Following, Error> {
    start(url, vec![(name.to_owned(), Chain::after(Some(position)))], false, metrics)
}

fn start(
    url: &str,
    feeds: Vec<(String, Chain)>,
    newest: bool,
    metrics: FollowMetrics,
) -> Result<Following, Error> {
    let (events, receiver) = mpsc::channel(EVENTS_WAITING);
    let first = connect(url)?;
    let url = url.to_owned();
    let mut follower = Follower {
        by_channel: feeds.iter().enumerate().map(|(i, (name, _))| (channel(name), i)).collect(),
        feeds: feeds
            .into_iter()
            .map(|(name, chain)| FeedState { name, chain, dirty: true, notice: Notice::default() })
            .collect(),
        newest,
        events,
        metrics,
        failed_polls: 0,
        began: false,
    };
    let task = tokio::spawn(async move {
        let mut connection = first;
        loop {
            follower.run(&mut connection).await;
            warn!("the Redis client ended by itself; making a new one");
            tokio::time::sleep(POLL).await;
            match connect(&url) {
                Ok(new) => connection = new,
                Err(error) => warn!(%error, "no new Redis client"),
            }
            follower.distrust_all();
        }
    });
    Ok(Following { events: receiver, task })
}

struct FeedState {
    name: String,
    chain: Chain,
    /// To be subscribed to and refilled: neither was done, or only half of it, or who knows.
    dirty: bool,
    /// What is said of records that cannot be read yet.
    notice: Notice,
}

struct Follower {
    feeds: Vec<FeedState>,
    by_channel: HashMap<String, usize>,
    /// Where nothing has been delivered yet, begin at the newest record.
    newest: bool,
    events: mpsc::Sender<Event>,
    metrics: FollowMetrics,
    failed_polls: u32,
    began: bool,
}

impl Follower {
    /// Follows until the driver's task ends.
    async fn run(&mut self, connection: &mut Connection) {
        let client = connection.client.clone();
        let mut messages = client.message_rx();
        let mut reconnects = client.reconnect_rx();
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = connection.ended() => return,
                reconnected = reconnects.recv() => {
                    if reconnected.is_ok() && self.began {
                        self.metrics.reconnects.inc();
                        debug!("reconnected to Redis");
                    }
                    // Several in a row need one refill.
                    while reconnects.try_recv().is_ok() {}
                    self.distrust_all();
                    // A Redis that answers no command, as while it loads, is not asked in a loop.
                    if self.failed_polls == 0 {
                        self.poll(&client).await;
                    }
                }
                message = messages.recv() => match message {
                    Ok(message) => self.heard(&client, message).await,
                    Err(RecvError::Lagged(missed)) => {
                        self.metrics.overflows.inc();
                        info!(missed, "fell behind the subscription; refilling from the logs");
                        self.distrust_all();
                        self.poll(&client).await;
                    }
                    Err(RecvError::Closed) => return,
                },
                _ = poll.tick() => self.poll(&client).await,
            }
        }
    }

    async fn heard(&mut self, client: &Client, message: Message) {
        let Some(&feed) = self.by_channel.get(&*message.channel) else { return };
        let record = message.value.convert::<Bytes>().ok().and_then(Record::decode);
        let Some(record) = record else {
            warn!(feed = self.feeds[feed].name, "something that is no record was published; ignored");
            return;
        };
        match self.feeds[feed].chain.offer(&record, false) {
            RecordCheck::Next => self.deliver(feed, record).await,
            RecordCheck::Old => {}
            // Before the first refill each record looks like a hole; that refill is coming.
            RecordCheck::Gap if self.feeds[feed].dirty => {}
            RecordCheck::Gap => {
                self.metrics.refills.inc();
                if let Err(error) = self.refill(client, feed).await {
                    warn!(%error, "refill failed; trying again at the next poll");
                    self.feeds[feed].dirty = true;
                }
            }
        }
    }

    async fn deliver(&mut self, feed: usize, record: Record) {
        self.metrics.records.inc();
        let _ = self.events.send(Event::Record { feed, record }).await;
    }

    fn distrust_all(&mut self) {
        self.feeds.iter_mut().for_each(|feed| feed.dirty = true);
    }

    /// Reads the heads, all at once, for there may be many; each stands alone, for of a Cluster only some nodes
    /// may be away.
    async fn poll(&mut self, client: &Client) {
        let heads = join_all(self.feeds.iter().map(|feed| read_head(client, &feed.name))).await;
        let answered = heads.iter().any(Result::is_ok);
        let (mut told, mut failed) = (Vec::new(), None);
        for (feed, head) in heads.into_iter().enumerate() {
            let looked = match head {
                Ok((head, note)) => {
                    if let Some(records) = self.feeds[feed].notice.look(note, Instant::now()) {
                        let _ = self.events.send(Event::HeldBack { feed, records }).await;
                    }
                    self.look(client, feed, head).await.map(|()| head)
                }
                Err(error) => Err(error),
            };
            told.push(looked.as_ref().map_or(Head::Unknown, |head| Head::Known(*head)));
            if let Err(error) = looked {
                failed.get_or_insert(error);
            }
        }
        if told.iter().any(|head| *head != Head::Unknown) {
            let _ = self.events.send(Event::Heads(told)).await;
        }
        let Some(error) = failed else {
            self.began = true;
            self.failed_polls = 0;
            self.metrics.connected.set(1);
            return;
        };
        self.metrics.connected.set(0);
        self.failed_polls += 1;
        if self.failed_polls == 1 {
            warn!(%error, "Redis does not answer; going on when it does");
        }
        if !answered && self.failed_polls.is_multiple_of(FAILED_POLLS) {
            let _ = client.force_reconnection().await;
        }
    }

    /// What a feed's head says: subscribes and refills where that is needed.
    async fn look(&mut self, client: &Client, feed: usize, head: Option<Position>) -> Result<(), Error> {
        let followed = &mut self.feeds[feed];
        match followed.chain.check_head(head) {
            HeadCheck::Fine => {}
            HeadCheck::Differs if followed.dirty => {}
            HeadCheck::Differs => self.refill(client, feed).await?,
            HeadCheck::Deaf => {
                warn!(feed = followed.name, "the subscription is deaf; subscribing anew");
                self.metrics.deaf.inc();
                followed.dirty = true;
            }
        }
        if self.feeds[feed].dirty {
            // Answered before the log is read, so whatever is not in it will be heard.
            let channel = channel(&self.feeds[feed].name);
            client.ssubscribe(channel).await.map_err(Error::redis("subscribing"))?;
            if self.began {
                self.metrics.refills.inc();
            }
            self.refill(client, feed).await?;
            self.feeds[feed].dirty = false;
        }
        Ok(())
    }

    /// Delivers what the log has after the record held, page by page; `Reset` if the log does not
    /// continue from there.
    async fn refill(&mut self, client: &Client, feed: usize) -> Result<(), Error> {
        let mut count = 16;
        loop {
            let held = self.feeds[feed].chain.held();
            let name = self.feeds[feed].name.clone();
            let page = if self.newest && self.feeds[feed].chain.is_open() {
                let newest = read_newest(client, &name).await?;
                if newest.is_empty() {
                    // The first that ever comes is the next.
                    self.feeds[feed].chain = Chain::after(None);
                }
                newest
            } else {
                read_log(client, &name, held, count).await?
            };
            let entries = page.len() as u64;
            let bytes: usize = page.iter().map(|r| r.payload.len() + 64).sum();
            let mut records = page.into_iter().peekable();
            if let (Some(held), Some(first)) = (held, records.peek())
                && first.position == held
            {
                records.next();
            } else if let Some(reason) = self.lost(client, feed, records.peek()).await? {
                self.reset(feed, reason).await;
                continue;
            }
            for record in records {
                match self.feeds[feed].chain.offer(&record, true) {
                    RecordCheck::Next => self.deliver(feed, record).await,
                    RecordCheck::Old => {}
                    RecordCheck::Gap => {
                        self.reset(feed, ResetReason::HistoryChanged).await;
                        self.feeds[feed].chain.offer(&record, true);
                        self.deliver(feed, record).await;
                    }
                }
            }
            if entries < count {
                return Ok(());
            }
            // Records may grow from page to page, so pages grow slowly.
            let fits = (PAGE_BYTES / (bytes / entries as usize).max(1)) as u64;
            count = fits.clamp(2, (count * 4).min(1000));
        }
    }

    /// Why the log does not continue from the record held, if it does not; `first` is its first
    /// entry from there on.
    async fn lost(
        &self,
        client: &Client,
        feed: usize,
        first: Option<&Record>,
    ) -> Result<Option<ResetReason>, Error> {
        let followed = &self.feeds[feed];
        let Some(held) = followed.chain.held() else { return Ok(None) };
        match first {
            Some(first) if first.position.epoch != held.epoch => Ok(Some(ResetReason::NewEpoch)),
            Some(first) if first.position.seq > held.seq && !held.is_followed_by(first.position.seq) => {
                Ok(Some(ResetReason::Trimmed))
            }
            Some(first) if first.position.seq > held.seq && first.prev_time_us == held.time_us => Ok(None),
            Some(_) => Ok(Some(ResetReason::HistoryChanged)),
            None => Ok(match read_head(client, &followed.name).await?.0 {
                Some(head) if head == held => None,
                Some(head) if head.epoch == held.epoch => Some(ResetReason::HistoryChanged),
                _ => Some(ResetReason::NewEpoch),
            }),
        }
    }

    async fn reset(&mut self, feed: usize, reason: ResetReason) {
        let followed = &mut self.feeds[feed];
        warn!(feed = followed.name, reason = reason.as_str(), held = ?followed.chain.held(), "reset");
        self.metrics.resets.inc();
        followed.chain = Chain::from_oldest();
        let _ = self.events.send(Event::Reset { feed, reason }).await;
    }
}

/// Where a feed's head is, and the note of what is held back.
async fn read_head(client: &Client, name: &str) -> Result<(Option<Position>, Option<String>), Error> {
    let (epoch, seq, time_us, note): (Option<u32>, Option<u64>, Option<u64>, Option<String>) = client
        .hmget(head_key(name), vec!["epoch", "seq", "time_us", held_back::FIELD])
        .await
        .map_err(Error::redis(format!("reading the head of feed {name}")))?;
    let position = match (epoch, seq, time_us) {
        (Some(epoch), Some(seq), Some(time_us)) => Some(Position { epoch, seq, time_us }),
        _ => None,
    };
    Ok((position, note))
}

/// At most so many of a log's entries from `from` on, itself included; from the oldest if there is none.
///
/// # Errors
/// [`Error::Redis`] if Redis does not answer, [`Error::Answer`] if the log holds something else.
pub async fn read_log(
    client: &Client,
    name: &str,
    from: Option<Position>,
    count: u64,
) -> Result<Vec<Record>, Error> {
    let start = from.map_or("-".to_owned(), |p| format!("{}-{}", p.seq, p.time_us));
    let entries = client.xrange(log_key(name), start, "+", Some(count)).await;
    records_of(name, entries)
}

async fn read_newest(client: &Client, name: &str) -> Result<Vec<Record>, Error> {
    records_of(name, client.xrevrange(log_key(name), "+", "-", Some(1)).await)
}

type Entries = Vec<(String, HashMap<String, Bytes>)>;

fn records_of(name: &str, entries: Result<Entries, fred::error::Error>) -> Result<Vec<Record>, Error> {
    let entries = entries.map_err(Error::redis(format!("reading the log of feed {name}")))?;
    entries
        .into_iter()
        .map(|(id, mut fields)| {
            fields.remove("r").and_then(Record::decode).ok_or_else(|| Error::Answer {
                doing: format!("reading the log of feed {name}"),
                answer: format!("entry {id} holds no record"),
            })
        })
        .collect()
}
