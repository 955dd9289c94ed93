//! Refilling a feed from its log.

use fred::prelude::*;
use tracing::warn;
use tutti_model::ResetReason;

use super::event::Event;
use super::follower::Follower;
use crate::chain::{Chain, RecordCheck};
use crate::error::Error;
use crate::head::read_head;
use crate::log::{read_log, read_newest};
use crate::record::Record;

/// Records in the first page of a refill.
const FIRST_PAGE: u64 = 16;
/// Records in a page at most.
const MAX_PAGE: u64 = 1000;
/// Bytes that a page should have at most, judged by the page before it.
const PAGE_BYTES: usize = 4 << 20;
/// Bytes that a record takes beside its payload.
const RECORD_OVERHEAD: usize = 64;

impl Follower {
    /// Delivers the records of the log after the one that the chain holds, page by page. Resets the feed if the log
    /// does not go on from there.
    pub(super) async fn refill(&mut self, client: &Client, feed: usize) -> Result<(), Error> {
        let mut count = FIRST_PAGE;
        loop {
            let held = self.feeds[feed].chain.held();
            let page = self.read_page(client, feed, count).await?;
            let entries = page.len() as u64;
            let bytes: usize = page.iter().map(|record| record.payload.len() + RECORD_OVERHEAD).sum();
            let mut records = page.into_iter().peekable();
            if let (Some(held), Some(first)) = (held, records.peek())
                && first.position == held
            {
                records.next();
            } else if let Some(reason) = self.why_reset(client, feed, records.peek()).await? {
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
            // Records may be larger from page to page, so pages grow slowly.
            let fits = (PAGE_BYTES / (bytes / entries as usize).max(1)) as u64;
            count = fits.clamp(2, (count * 4).min(MAX_PAGE));
        }
    }

    /// Reads the next page of the log, beginning with the record that the chain holds.
    async fn read_page(&mut self, client: &Client, feed: usize, count: u64) -> Result<Vec<Record>, Error> {
        let state = &mut self.feeds[feed];
        if !self.from_newest || !state.chain.is_open() {
            return read_log(client, &state.name, state.chain.held(), count).await;
        }
        let newest = read_newest(client, &state.name).await?;
        if newest.is_empty() {
            // The feed has no record yet, so its first one is the next.
            state.chain = Chain::after(None);
        }
        Ok(newest)
    }

    /// Returns why the log does not go on from the record that the chain holds, or `None` if it does. `first` is the
    /// first entry of the log from there on.
    async fn why_reset(
        &self,
        client: &Client,
        feed: usize,
        first: Option<&Record>,
    ) -> Result<Option<ResetReason>, Error> {
        let state = &self.feeds[feed];
        let Some(held) = state.chain.held() else { return Ok(None) };
        match first {
            Some(first) if first.position.epoch != held.epoch => Ok(Some(ResetReason::NewEpoch)),
            Some(first) if first.position.seq > held.seq && !held.is_followed_by(first.position.seq) => {
                Ok(Some(ResetReason::Trimmed))
            }
            Some(first) if first.position.seq > held.seq && first.prev_time_us == held.time_us => Ok(None),
            Some(_) => Ok(Some(ResetReason::HistoryChanged)),
            None => Ok(match read_head(client, &state.name).await?.0 {
                Some(head) if head == held => None,
                Some(head) if head.epoch == held.epoch => Some(ResetReason::HistoryChanged),
                _ => Some(ResetReason::NewEpoch),
            }),
        }
    }

    async fn reset(&mut self, feed: usize, reason: ResetReason) {
        let state = &mut self.feeds[feed];
        warn!(
            feed = state.name,
            reason = reason.as_str(),
            held = ?state.chain.held(),
            "records of a feed are missing for good; following it from its oldest record"
        );
        self.metrics.resets.inc();
        state.chain = Chain::from_oldest();
        let _ = self.events.send(Event::Reset { feed, reason }).await;
    }
}
