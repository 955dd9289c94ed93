//! The notifications' service.

use tonic::transport::Channel;

use crate::http::upstream::Replicas;
use crate::metrics::Metrics;

/// The generated gRPC client of `proto/tutti/notify/v1`.
mod proto {
    #![allow(missing_docs, reason = "generated; documented in proto/tutti/notify/v1/notify.proto")]
    #![allow(unreachable_pub, reason = "generated")]
    #![allow(clippy::all, clippy::pedantic, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/tutti.notify.v1.rs"));
}

pub(crate) use proto::notify_client::NotifyClient;

/// Its replicas.
pub(crate) type Notify = Replicas<NotifyClient<Channel>>;

/// Its replicas at these URLs.
///
/// # Errors
/// Which URL is none.
pub(crate) fn connect(urls: &[String], metrics: &Metrics) -> Result<Notify, String> {
    Replicas::new("the notifications' service", urls, NotifyClient::new, metrics.notify_unavailable.clone())
}
