//! Polling the heads: they show records that were never heard of, and whether Redis answers.

use fred::prelude::*;
use futures_util::future::join_all;
use tokio::time::Instant;
use tracing::warn;

use super::event::{Event, Head};
use super::follower::Follower;
use crate::chain::HeadCheck;
use crate::error::Error;
use crate::head::read_head;
use crate::keys::channel;
use crate::record::Position;

/// Polls without any answer, in a row, after which the connection is made again.
const FAILED_POLLS: u32 = 3;

impl Follower {
    /// Reads all heads, and catches up where they show that something is missing. The heads are read all at once,
    /// since there may be many. Each one may fail by itself, since only some nodes of a Cluster may be away.
    pub(super) async fn poll(&mut self, client: &Client) {
        let answers = join_all(self.feeds.iter().map(|feed| read_head(client, &feed.name))).await;
        let answered = answers.iter().any(Result::is_ok);
        let (mut heads, mut failure) = (Vec::new(), None);
        for (feed, answer) in answers.into_iter().enumerate() {
            let checked = match answer {
                Ok((head, note)) => {
                    if let Some(records) = self.feeds[feed].held_back.update(note, Instant::now()) {
                        let _ = self.events.send(Event::HeldBack { feed, records }).await;
                    }
                    self.check_head(client, feed, head).await.map(|()| head)
                }
                Err(error) => Err(error),
            };
            heads.push(checked.as_ref().map_or(Head::Unknown, |head| Head::Known(*head)));
            if let Err(error) = checked {
                failure.get_or_insert(error);
            }
        }
        if heads.iter().any(|head| *head != Head::Unknown) {
            let _ = self.events.send(Event::Heads(heads)).await;
        }
        let Some(error) = failure else {
            self.has_begun = true;
            self.failed_polls = 0;
            self.metrics.connected.set(1);
            return;
        };
        self.metrics.connected.set(0);
        self.failed_polls += 1;
        if self.failed_polls == 1 {
            warn!(%error, "Redis does not answer; feeds are followed again once it does");
        }
        if !answered && self.failed_polls.is_multiple_of(FAILED_POLLS) {
            let _ = client.force_reconnection().await;
        }
    }

    /// Compares a head with what was received, and subscribes or refills if that is needed.
    async fn check_head(
        &mut self,
        client: &Client,
        feed: usize,
        head: Option<Position>,
    ) -> Result<(), Error> {
        let state = &mut self.feeds[feed];
        match state.chain.check_head(head) {
            HeadCheck::Fine => {}
            HeadCheck::Differs if state.is_stale => {}
            HeadCheck::Differs => self.refill(client, feed).await?,
            HeadCheck::Deaf => {
                warn!(
                    feed = state.name,
                    "the subscription does not bring what is published; subscribing again"
                );
                self.metrics.deaf.inc();
                state.is_stale = true;
            }
        }
        if self.feeds[feed].is_stale {
            // The subscription is confirmed before the log is read, so what is not in the log will be heard.
            let channel = channel(&self.feeds[feed].name);
            client.ssubscribe(channel).await.map_err(Error::redis("subscribing"))?;
            if self.has_begun {
                self.metrics.refills.inc();
            }
            self.refill(client, feed).await?;
            self.feeds[feed].is_stale = false;
        }
        Ok(())
    }
}
