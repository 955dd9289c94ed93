//! The gRPC client of the notifications' service.

use tonic::transport::Channel;

use crate::http::upstream::Replicas;
use crate::metrics::Metrics;

pub(crate) use crate::inbox::proto::notify_client::NotifyClient;

/// The replicas of the notifications' service.
pub(crate) type Notify = Replicas<NotifyClient<Channel>>;

/// Returns a client of the replicas at `urls`. Replicas are connected to when they are first asked.
///
/// # Errors
/// If one of `urls` is not a URL; the message names it.
pub(crate) fn connect(urls: &[String], metrics: &Metrics) -> Result<Notify, String> {
    Replicas::new("the notifications' service", urls, NotifyClient::new, metrics.notify_unavailable.clone())
}
