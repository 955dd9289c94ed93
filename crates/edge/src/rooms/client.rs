//! The gRPC client of the waiting room's service.

use tonic::transport::Channel;
use tutti_feed::Position;
use tutti_model::queue::Version;

use crate::http::upstream::Replicas;
use crate::metrics::Metrics;

pub(crate) use crate::rooms::proto::queue_client::QueueClient;

/// Largest answer that is accepted. The largest is a snapshot, which has one bit for each visitor.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// The replicas of the waiting room's service.
pub(crate) type Queue = Replicas<QueueClient<Channel>>;

/// Returns a client of the replicas at `urls`. Replicas are connected to when they are first asked.
///
/// # Errors
/// If one of `urls` is not a URL; the message names it.
pub(crate) fn connect(urls: &[String], metrics: &Metrics) -> Result<Queue, String> {
    let client = |channel| QueueClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
    Replicas::new("the waiting room's service", urls, client, metrics.queue_unavailable.clone())
}

/// Converts a version of a room to the position in the room's feed. A missing version becomes all zeros.
pub(crate) fn position(version: Option<Version>) -> Position {
    let Version { epoch, seq, time_us } = version.unwrap_or_default();
    Position { epoch, seq, time_us }
}
