//! Declaring metrics: the name, the help line and the kind of each in one place.
//!
//! Names are without the prefix `tutti_`, which the registry of a service adds, and without the `_total` of a
//! counter, which the encoder adds. All clones of a metric share one value.

use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

/// Registers a new metric and returns it for the code that counts.
pub fn metric<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

/// Registers a new histogram and returns it for the code that observes. `buckets` are the upper bounds of its
/// buckets.
pub fn histogram(
    registry: &mut Registry,
    name: &str,
    help: &str,
    buckets: impl IntoIterator<Item = f64>,
) -> Histogram {
    let histogram = Histogram::new(buckets);
    registry.register(name, help, histogram.clone());
    histogram
}
