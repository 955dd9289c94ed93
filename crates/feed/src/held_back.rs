//! Records that lie in Kafka and cannot be read yet, as behind an open transaction. No hole in a feed shows them, and
//! other partitions of the same feed go on; so a note beside the feed says how many there are.
//!
//! The note is a field of the feed's head. No record depends on it. Who is held back writes it again every few
//! seconds; a note that stays the same is of someone who has ended, and counts no more.

use std::time::Duration;

use fred::clients::Client;
use fred::prelude::*;
use tokio::time::Instant;

use crate::error::Error;
use crate::keys::head_key;

/// The field of a head that has the note: the number of records, a colon, and what changes with each writing.
pub(crate) const FIELD: &str = "held_back";

/// A note that stays the same for this long counts no more.
const GOOD_FOR: Duration = Duration::from_secs(15);

/// Writes, or clears, the note of a feed. `at_ms` must be another each time.
///
/// # Errors
/// [`Error::Redis`] if Redis does not answer.
pub(crate) async fn write_note(client: &Client, feed: &str, records: u64, at_ms: i64) -> Result<(), Error> {
    let head = head_key(feed);
    let written: Result<(), fred::error::Error> = match records {
        0 => client.hdel(head, FIELD).await,
        _ => client.hset(head, (FIELD, format!("{records}:{at_ms}"))).await,
    };
    written.map_err(Error::redis(format!("noting in feed {feed} what is held back")))
}

/// What a follower knows of a feed's note.
#[derive(Default)]
pub(crate) struct Notice {
    /// The last note that was read, and since when it has been that one.
    note: Option<(String, Instant)>,
    records: u64,
}

impl Notice {
    /// Takes the note as it was read now. Returns how many records are held back, if that has changed.
    pub(crate) fn look(&mut self, note: Option<String>, now: Instant) -> Option<u64> {
        let since = match &self.note {
            Some((held, since)) if note.as_ref() == Some(held) => *since,
            _ => now,
        };
        let is_good = now.duration_since(since) < GOOD_FOR;
        let records = note.as_deref().filter(|_| is_good).map_or(0, records_of);
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
        let mut notice = Notice::default();
        assert_eq!(notice.look(None, at(0)), None);
        assert_eq!(notice.look(note("7:1"), at(1)), Some(7));
        assert_eq!(notice.look(note("7:1"), at(2)), None, "it is known");
        assert_eq!(notice.look(note("9:2"), at(6)), Some(9));
        assert_eq!(notice.look(note("9:3"), at(20)), None, "as many as before");
        assert_eq!(notice.look(note("9:3"), at(34)), None);
        assert_eq!(notice.look(note("9:3"), at(35)), Some(0), "who wrote it has ended");
        assert_eq!(notice.look(note("9:4"), at(36)), Some(9));
        assert_eq!(notice.look(None, at(37)), Some(0));
        assert_eq!(notice.look(note("nonsense"), at(38)), None);
    }
}
