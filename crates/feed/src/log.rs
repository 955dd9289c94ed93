//! Reading the log of a feed: a Redis stream whose entries have the ids `<seq>-<time_us>` and one field, the record.

use std::collections::HashMap;

use bytes::Bytes;
use fred::prelude::*;

use crate::error::Error;
use crate::keys::log_key;
use crate::record::{Position, Record};

/// Entries of a Redis stream: the id of each, and its fields.
type Entries = Vec<(String, HashMap<String, Bytes>)>;

/// Reads at most `count` records of a log from the position `from` on, the record at that position included. `None`
/// reads from the oldest record on.
///
/// # Errors
/// [`Error::Redis`] if Redis does not answer, [`Error::Answer`] if the log holds something else than records.
pub async fn read_log(
    client: &Client,
    feed: &str,
    from: Option<Position>,
    count: u64,
) -> Result<Vec<Record>, Error> {
    let start = from.map_or("-".to_owned(), |position| format!("{}-{}", position.seq, position.time_us));
    records_of(feed, client.xrange(log_key(feed), start, "+", Some(count)).await)
}

/// Reads the newest record of a log, if there is one.
///
/// # Errors
/// [`Error::Redis`] if Redis does not answer, [`Error::Answer`] if the log holds something else than records.
pub(crate) async fn read_newest(client: &Client, feed: &str) -> Result<Vec<Record>, Error> {
    records_of(feed, client.xrevrange(log_key(feed), "+", "-", Some(1)).await)
}

fn records_of(feed: &str, entries: Result<Entries, fred::error::Error>) -> Result<Vec<Record>, Error> {
    let doing = || format!("reading the log of feed {feed}");
    let record_of = |(id, mut fields): (String, HashMap<String, Bytes>)| {
        fields
            .remove("r")
            .and_then(Record::decode)
            .ok_or_else(|| Error::Answer { doing: doing(), answer: format!("entry {id} holds no record") })
    };
    entries.map_err(Error::redis(doing()))?.into_iter().map(record_of).collect()
}
