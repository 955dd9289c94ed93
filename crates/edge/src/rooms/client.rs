//! The waiting room's service.

use tonic::transport::Channel;
use tutti_feed::Position;
use tutti_model::queue::Version;

use crate::http::upstream::Replicas;
use crate::metrics::Metrics;

pub(crate) use crate::rooms::proto::queue_client::QueueClient;

/// A snapshot has a bit a visitor.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Its replicas.
pub(crate) type Queue = Replicas<QueueClient<Channel>>;

/// Its replicas at these URLs.
///
/// # Errors
/// Which URL is none.
pub(crate) fn connect(urls: &[String], metrics: &Metrics) -> Result<Queue, String> {
    let client = |channel| QueueClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
    Replicas::new("the waiting room's service", urls, client, metrics.queue_unavailable.clone())
}

/// A version of a room as the place in its feed that it is.
pub(crate) fn position(version: Option<Version>) -> Position {
    let Version { epoch, seq, time_us } = version.unwrap_or_default();
    Position { epoch, seq, time_us }
}
