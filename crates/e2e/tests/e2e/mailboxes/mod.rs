//! Tests of the scripts of mailboxes on a real Redis: each thing that they promise, and then random stories held
//! against a model. The clock of the scripts is that of Redis.

mod filing;
mod keeping;
mod lost_keys;
mod marks;
mod model;
mod pages;
mod records;
mod resume;
mod stored;
mod story;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tutti_e2e::redis::Redis;
use tutti_e2e::unique;
use tutti_feed::{
    FileOutcome, Filing, Letter, Mailbox, MailboxChange, MailboxLimits, MailboxMetrics, Mailboxes, Position,
    Record, Since, read_log,
};

const HOUR: Duration = Duration::from_secs(3600);
const KEEP: MailboxLimits = MailboxLimits { items: 100, bytes: 1 << 20, age: HOUR };
/// Bytes that an item takes besides its id and payload.
const ITEM_BYTES: usize = 26;

/// Makes mailboxes in one bucket.
fn boxes(redis: &Redis, keep: MailboxLimits) -> Mailboxes {
    Mailboxes::new(redis.client().clone(), unique("boxes").leak(), 1, keep, MailboxMetrics::default())
}

/// Returns the time `after` from now, in microseconds since 1970.
fn later(after: Duration) -> u64 {
    (SystemTime::now() + after).duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

fn filing(address: &str, id: &str, payload: impl Into<Bytes>) -> Filing {
    Filing {
        address: address.to_owned(),
        id: id.to_owned(),
        expires_us: later(HOUR),
        payload: payload.into(),
    }
}

fn filed(filed: u64, known: u64, expired: u64) -> FileOutcome {
    FileOutcome { filed, known, expired, time_us: 0 }
}

/// Files items. Returns the outcome without its time.
async fn file_all(boxes: &Mailboxes, filings: &[Filing]) -> FileOutcome {
    FileOutcome { time_us: 0, ..boxes.file(0, filings).await.unwrap() }
}

/// Files one item. Returns the position of the feed after it.
async fn file(boxes: &Mailboxes, address: &str, id: &str, payload: impl Into<Bytes>) -> Position {
    let outcome = file_all(boxes, &[filing(address, id, payload)]).await;
    assert_eq!(outcome, filed(1, 0, 0), "{id}");
    place(boxes).await
}

/// Returns the position of the feed.
async fn place(boxes: &Mailboxes) -> Position {
    boxes.read("nobody", Since::Now).await.unwrap().position.unwrap()
}

fn ids(mailbox: &Mailbox) -> Vec<String> {
    mailbox.items.iter().map(|item| item.id.clone()).collect()
}

async fn log(redis: &Redis, boxes: &Mailboxes) -> Vec<Record> {
    read_log(redis.client(), &boxes.feed(0), None, 100_000).await.unwrap()
}

fn letters(record: &Record) -> Vec<Letter> {
    Letter::read_all(record.payload.clone()).unwrap()
}

/// Returns the last change in the log for an address, and the count of unread items that came with it.
fn last_news(records: &[Record], address: &str) -> (u32, MailboxChange) {
    let letter = records.iter().rev().flat_map(letters).find(|letter| letter.address == address).unwrap();
    (letter.unread, letter.change)
}
