//! The head of a feed: a hash with epoch, number and time of the newest record.

use fred::prelude::*;

use crate::error::Error;
use crate::held_back::NOTE_FIELD;
use crate::keys::head_key;
use crate::record::Position;

/// Reads the position of the newest record of a feed, if there is one, and the note about records that are held back.
///
/// # Errors
/// [`Error::Redis`] if Redis does not answer.
pub(crate) async fn read_head(
    client: &Client,
    feed: &str,
) -> Result<(Option<Position>, Option<String>), Error> {
    let (epoch, seq, time_us, note): (Option<u32>, Option<u64>, Option<u64>, Option<String>) = client
        .hmget(head_key(feed), vec!["epoch", "seq", "time_us", NOTE_FIELD])
        .await
        .map_err(Error::redis(format!("reading the head of feed {feed}")))?;
    let position = match (epoch, seq, time_us) {
        (Some(epoch), Some(seq), Some(time_us)) => Some(Position { epoch, seq, time_us }),
        _ => None,
    };
    Ok((position, note))
}
