//! Which decoder and which sink the partitions of a route have.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tutti_feed::{Client, Feed, LogLimits, MailboxLimits, Mailboxes, OffsetHistory, Replicas};
use tutti_kafka::AssignedPartition;
use tutti_model::names;
use tutti_service::shared::Inboxes;

use crate::config::{Config, Kind};
use crate::decode::event::{self, EventDecoder};
use crate::decode::location::{self, LocationDecoder};
use crate::decode::notification::NotificationDecoder;
use crate::feed_sink::FeedSink;
use crate::filer::Filer;
use crate::mailbox_sink::MailboxSink;
use crate::metrics::Metrics;
use crate::partition::{Partition, RouteContext};

/// What the routes of the service share.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) config: Arc<Config>,
    pub(crate) redis: Client,
    pub(crate) replicas: Replicas,
    pub(crate) metrics: Metrics,
    pub(crate) stop: CancellationToken,
}

impl Services {
    /// Returns the mailboxes as the configuration describes them.
    pub(crate) fn mailboxes(&self) -> Mailboxes {
        let Inboxes { buckets, items, bytes, age } = self.config.inboxes;
        let (keep, metrics) = (MailboxLimits { items, bytes, age }, self.metrics.mailboxes.clone());
        Mailboxes::new(self.redis.clone(), names::INBOX, buckets, keep, metrics)
            .with_replicas(self.replicas.clone())
    }

    fn feed(&self, name: &str, limits: LogLimits) -> Feed {
        Feed::new(self.redis.clone(), name, limits, self.metrics.append.clone())
            .with_replicas(self.replicas.clone())
    }
}

/// Makes the partitions of one route.
pub(crate) struct Assembly {
    services: Services,
    context: Arc<RouteContext>,
    /// One for each bucket of the mailboxes, if the route carries notifications.
    filers: Arc<[Filer]>,
    /// Counts the connections to Redis.
    connection_epoch: watch::Receiver<u64>,
}

impl Assembly {
    pub(crate) fn new(services: Services, context: RouteContext) -> Self {
        let filers: Arc<[Filer]> = match context.route.kind {
            Kind::Notifications { .. } => {
                let mailboxes = services.mailboxes();
                (0..mailboxes.buckets()).map(|bucket| Filer::start(mailboxes.clone(), bucket)).collect()
            }
            Kind::Locations { .. } | Kind::Events { .. } => [].into(),
        };
        let connection_epoch = tutti_feed::connection_epoch(&services.redis);
        Self { services, context: Arc::new(context), filers, connection_epoch }
    }

    /// Returns what runs an assigned partition until the group revokes it.
    pub(crate) fn run(&self, assigned: AssignedPartition) -> BoxFuture<'static, ()> {
        let (config, context) = (&self.services.config, self.context.clone());
        let source = context.source(assigned.partition);
        match &self.context.route.kind {
            Kind::Locations { format } => {
                let shard = names::shard_of(assigned.partition, config.locations.shards);
                let decoder = LocationDecoder {
                    format: *format,
                    stale_after_ms: config.locations.stale_after.as_millis() as i64,
                    left_out: self.services.metrics.left_out_of(&context.route.topic),
                };
                let feed = self.services.feed(&names::locations_feed(shard), config.limits);
                let sink = FeedSink { feed, source, encode_gap: location::gap_payload };
                Partition::new(context, assigned, decoder, sink, config.limits.max_age).run().boxed()
            }
            Kind::Events { event } => {
                let decoder = EventDecoder { event: event.clone() };
                let feed = self.services.feed(&names::topic_feed(&context.route.topic), config.topic_limits);
                let sink = FeedSink { feed, source, encode_gap: event::gap_payload };
                Partition::new(context, assigned, decoder, sink, config.topic_limits.max_age).run().boxed()
            }
            Kind::Notifications { format } => {
                let keep = config.inboxes.age;
                let history = OffsetHistory::new(self.services.redis.clone(), &source);
                let decoder = NotificationDecoder { source, format: *format, keep };
                let (filers, connection_epoch) = (self.filers.clone(), self.connection_epoch.clone());
                let sink = MailboxSink::new(self.services.mailboxes(), filers, history, connection_epoch);
                Partition::new(context, assigned, decoder, sink, keep).run().boxed()
            }
        }
    }
}
