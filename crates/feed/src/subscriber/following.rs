use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::event::Event;
use super::follower::{FeedState, Follower};
use crate::chain::Chain;
use crate::error::Error;
use crate::metrics::FollowMetrics;
use crate::record::Position;
use crate::redis::connect;

/// Events that wait for the caller. While the queue is full the follower waits, and refills from the logs afterwards.
const EVENTS_WAITING: usize = 1024;

/// Receives the events of followed feeds. The task that makes them ends when this is dropped.
pub struct Following {
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
}

impl Following {
    /// Waits for the next event. While Redis is away there is none. Returns `None` if the task that makes events has
    /// ended, which it should not: the caller must follow again.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Waits for the next event, and returns it with those that are there already, `limit` in all. Returns an empty
    /// list if the task that makes events has ended. Cancel safe.
    pub async fn next_few(&mut self, limit: usize) -> Vec<Event> {
        let mut events = Vec::new();
        self.events.recv_many(&mut events, limit).await;
        events
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Follows feeds from the oldest record of each log on.
///
/// # Errors
/// [`Error::Scheme`] or [`Error::Url`] if the URL is not one of a Redis. A Redis that does not answer is waited for.
pub fn follow(url: &str, names: &[String], metrics: FollowMetrics) -> Result<Following, Error> {
    start(url, from_oldest(names), false, metrics)
}

/// Follows feeds from the newest record of each log on, also after a reset. The caller learns from elsewhere what was
/// before.
///
/// # Errors
/// [`Error::Scheme`] or [`Error::Url`] if the URL is not one of a Redis. A Redis that does not answer is waited for.
pub fn follow_newest(url: &str, names: &[String], metrics: FollowMetrics) -> Result<Following, Error> {
    start(url, from_oldest(names), true, metrics)
}

/// Follows one feed from the record after `position` on.
///
/// # Errors
/// [`Error::Scheme`] or [`Error::Url`] if the URL is not one of a Redis. A Redis that does not answer is waited for.
pub fn follow_from(
    url: &str,
    name: &str,
    position: Position,
    metrics: FollowMetrics,
) -> Result<Following, Error> {
    start(url, vec![FeedState::new(name, Chain::after(Some(position)))], false, metrics)
}

fn from_oldest(names: &[String]) -> Vec<FeedState> {
    names.iter().map(|name| FeedState::new(name, Chain::from_oldest())).collect()
}

fn start(
    url: &str,
    feeds: Vec<FeedState>,
    from_newest: bool,
    metrics: FollowMetrics,
) -> Result<Following, Error> {
    let (sender, events) = mpsc::channel(EVENTS_WAITING);
    let connection = connect(url)?;
    let follower = Follower::new(feeds, from_newest, sender, metrics);
    let task = tokio::spawn(follower.run(url.to_owned(), connection));
    Ok(Following { events, task })
}
