//! Records that are *held back*: they lie in Kafka and cannot be read yet, for example behind an open transaction.
//! They leave no gap in the feed, because other partitions go on. So a note in the head of the feed says how many there
//! are.
//!
//! No record depends on the note. A writer whose records are held back repeats it every few seconds. A note that
//! stays the same is of a writer that has ended, and does not count any more.

use std::time::Duration;

use fred::clients::Client;
use fred::prelude::*;
use tokio::time::Instant;

use crate::error::Error;
use crate::keys::head_key;

/// Field of the head that holds the note: the number of records, a colon, and a text that differs each time it is
/// written.
pub(crate) const NOTE_FIELD: &str = "held_back";

/// Time after which a note that stays the same does not count any more.
const VALID_FOR: Duration = Duration::from_secs(15);

/// Writes the note of a feed, or deletes it if `records` is 0. `at_ms` must differ from call to call.
///
/// # Errors
/// [`Error::Redis`] if Redis does not answer.
pub(crate) async fn write_note(client: &Client, feed: &str, records: u64, at_ms: i64) -> Result<(), Error> {
    let head = head_key(feed);
    let written: Result<(), fred::error::Error> = match records {
        0 => client.hdel(head, NOTE_FIELD).await,
        _ => client.hset(head, (NOTE_FIELD, format!("{records}:{at_ms}"))).await,
    };
    written.map_err(Error::redis(format!("noting in feed {feed} how many records are held back")))
}

/// The note of one feed, as a follower has read it.
#[derive(Default)]
pub(crate) struct HeldBackNote {
    /// The last note that was read, and when it was first read.
    note: Option<(String, Instant)>,
    records: u64,
}

impl HeldBackNote {
    /// Takes the note that was read at `now`. Returns the number of records that are held back, if it has changed.
    pub(crate) fn update(&mut self, note: Option<String>, now: Instant) -> Option<u64> {
        let since = match &self.note {
            Some((held, since)) if note.as_ref() == Some(held) => *since,
            _ => now,
        };
        let is_valid = now.duration_since(since) < VALID_FOR;
        let records = note.as_deref().filter(|_| is_valid).map_or(0, records_of);
        self.note = note.map(|note| (note, since));
        (std::mem::replace(&mut self.records, records) != records).then_some(records)
    }
}

fn records_of(note: &str) -> u64 {
    note.split_once(':').and_then(|(records, _)| records.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_counts_while_it_is_written_again_and_again() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let note = |text: &str| Some(text.to_owned());
        let mut held_back = HeldBackNote::default();
        assert_eq!(held_back.update(None, at(0)), None);
        assert_eq!(held_back.update(note("7:1"), at(1)), Some(7));
        assert_eq!(held_back.update(note("7:1"), at(2)), None, "it is known");
        assert_eq!(held_back.update(note("9:2"), at(6)), Some(9));
        assert_eq!(held_back.update(note("9:3"), at(20)), None, "as many as before");
        assert_eq!(held_back.update(note("9:3"), at(34)), None);
        assert_eq!(held_back.update(note("9:3"), at(35)), Some(0), "who wrote it has ended");
        assert_eq!(held_back.update(note("9:4"), at(36)), Some(9));
        assert_eq!(held_back.update(None, at(37)), Some(0));
        assert_eq!(held_back.update(note("nonsense"), at(38)), None);
    }
}
