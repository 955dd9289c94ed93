//! What a consumer measures of each partition.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// The label set of a gauge per partition.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PartitionLabel {
    /// Name of the topic.
    pub topic: String,
    /// Number of the partition.
    pub partition: i32,
}

/// Gauges of the partitions that a consumer fetches. A partition that is revoked is removed from them.
#[derive(Clone, Debug, Default)]
pub struct PartitionMetrics {
    /// Records between the stored offset and the end of the partition.
    pub lag: Family<PartitionLabel, Gauge>,
    /// Records that an open transaction holds back.
    pub held_back: Family<PartitionLabel, Gauge>,
}

impl PartitionMetrics {
    /// Removes the gauges of a partition.
    pub(crate) fn remove(&self, label: &PartitionLabel) {
        self.lag.remove(label);
        self.held_back.remove(label);
    }
}
