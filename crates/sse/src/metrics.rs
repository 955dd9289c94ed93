//! Metrics of streams, whatever they show.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tutti_service::metric;

use crate::stream::CloseReason;

/// Label: why a stream ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Ended {
    /// The text of a [`CloseReason`].
    pub reason: &'static str,
}

/// Label: how the server answered bytes that are no request.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Unreadable {
    /// The status: 400, 408 or 431.
    pub status: u16,
}

/// Label: the work that is shared by turns.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Waiting {
    /// `replay`, `short_replay`, `mailbox`, `question`, `map_copy` or `small_map_copy`.
    pub turn: &'static str,
}

/// Metrics of the streams of all workers. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Streams open.
    pub streams: Gauge,
    /// Streams that are tasks of their own: they catch up, or their socket is full.
    pub behind: Gauge,
    /// Streams opened.
    pub opened: Counter,
    /// Streams ended, by reason.
    pub ended: Family<Ended, Counter>,
    /// Frames written to clients.
    pub deliveries: Counter,
    /// Bytes written to clients.
    pub delivered_bytes: Counter,
    /// Writes of which the socket took only a part.
    pub fell_behind: Counter,
    /// Streams and requests that wait for a turn, by the work that they wait for.
    pub waiting: Family<Waiting, Gauge>,
    /// Bytes that could not be read as a request, by the status of the answer.
    pub unreadable_requests: Family<Unreadable, Counter>,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        Self {
            streams: metric(registry, "edge_streams", "Streams open"),
            behind: metric(
                registry,
                "edge_streams_behind",
                "Streams being replayed to, or whose socket is full",
            ),
            opened: metric(registry, "edge_streams_opened", "Streams opened"),
            ended: metric(registry, "edge_streams_ended", "Streams ended, by reason"),
            deliveries: metric(registry, "edge_deliveries", "Frames written to clients"),
            delivered_bytes: metric(registry, "edge_delivered_bytes", "Bytes written to clients"),
            fell_behind: metric(registry, "edge_fell_behind", "Times a socket would not take a whole frame"),
            waiting: metric(
                registry,
                "edge_turns_waiting",
                "Streams and requests that wait for their turn, by at what",
            ),
            unreadable_requests: metric(
                registry,
                "edge_requests_unreadable",
                "What clients sent that cannot be read as a request, by the status of the answer",
            ),
        }
    }

    /// Returns the gauge of the streams and requests that wait for a turn at `turn`.
    pub fn waiting_for(&self, turn: &'static str) -> Gauge {
        self.waiting.get_or_create(&Waiting { turn }).clone()
    }

    /// Counts the end of a stream.
    pub fn ended(&self, reason: CloseReason) {
        self.streams.dec();
        self.ended.get_or_create(&Ended { reason: reason.as_str() }).inc();
    }
}
