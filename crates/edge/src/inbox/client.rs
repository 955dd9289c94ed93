//! The notifications' service.

use tonic::transport::Channel;

use crate::http::upstream::Replicas;
use crate::metrics::Metrics;

pub(crate) use crate::inbox::proto::notify_client::NotifyClient;

/// Its replicas.
pub(crate) type Notify = Replicas<NotifyClient<Channel>>;

/// Its replicas at these URLs.
///
/// # Errors
/// Which URL is none.
pub(crate) fn connect(urls: &[String], metrics: &Metrics) -> Result<Notify, String> {
    Replicas::new("the notifications' service", urls, NotifyClient::new, metrics.notify_unavailable.clone())
}
