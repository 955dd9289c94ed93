//! Metrics of a running service, read by the names that the service declares.
//!
//! A metric that is not there must never read as 0: a name that is misspelt is an error that lists the names near it.
//! One thing makes this hard. A family of which no label set has been counted yet does not appear in the text of
//! `/metrics`, so the text alone does not tell it from a name that is misspelt. [`Families`] therefore knows every name
//! that the registry of a service declares.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail, ensure};
use prometheus_client::encoding::text::encode;
use tutti_edge::Edge;
use tutti_ingest::Ingest;
use tutti_notify::Notify;
use tutti_queue::Queue;
use tutti_service::{Registry, Service};

/// Declared names that an error lists, at most.
const NEAR_NAMES: usize = 3;

/// The families of metrics that a service declares, and the type of each. The type of a family without label sets is not
/// known.
#[derive(Clone, Debug)]
pub struct Families(BTreeMap<String, Option<String>>);

impl Families {
    /// Registers the metrics of a service, such as `tutti-edge`, and returns what it declares.
    ///
    /// # Errors
    /// If no service has this name.
    pub fn of(service: &str) -> anyhow::Result<Self> {
        let mut registry = Registry::with_prefix("tutti");
        match service {
            Edge::NAME => drop(Edge::metrics(&mut registry)),
            Ingest::NAME => drop(Ingest::metrics(&mut registry)),
            Notify::NAME => drop(Notify::metrics(&mut registry)),
            Queue::NAME => drop(Queue::metrics(&mut registry)),
            _ => bail!("no service is called {service}"),
        }
        let mut text = String::new();
        encode(&mut text, &registry)?;
        let kind = |name: &str| {
            let lines = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
            lines.filter(|(family, _)| *family == name).map(|(_, kind)| kind.to_owned()).next()
        };
        Ok(Self(declared(&registry).into_iter().map(|name| (name.clone(), kind(&name))).collect()))
    }

    /// Whether a sample can have this name: the name of a family, with the ending that OpenMetrics gives to its type.
    pub fn has(&self, sample: &str) -> bool {
        self.0.iter().any(|(family, kind)| {
            let ending = sample.strip_prefix(family.as_str());
            ending.is_some_and(|ending| match kind.as_deref() {
                Some("counter") => ending == "_total",
                Some("histogram") => ["_bucket", "_count", "_sum"].contains(&ending),
                Some(_) => ending.is_empty(),
                None => ["", "_total"].contains(&ending),
            })
        })
    }

    /// Returns the value of a counter or gauge in the text of `/metrics`, summed over its label sets. A name that ends in
    /// labels, such as `tutti_edge_map_copies_total{part="whole"}`, is that one sample. A counter of which nothing has
    /// been counted is 0. A gauge that has not been set has no value.
    ///
    /// # Errors
    /// If the service declares no such metric.
    pub fn value(&self, text: &str, name: &str) -> anyhow::Result<Option<f64>> {
        let sample = name.split('{').next().unwrap_or(name);
        ensure!(
            self.has(sample),
            "no metric is called {sample}; near it are {}",
            self.near(sample).join(", ")
        );
        let values: Vec<&str> = text
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter_map(|line| line.rsplit(' ').next())
            .collect();
        if values.is_empty() && !sample.ends_with("_total") {
            return Ok(None);
        }
        let values =
            values.iter().map(|value| value.parse::<f64>().with_context(|| format!("{name} is {value}")));
        values.sum::<anyhow::Result<f64>>().map(Some)
    }

    fn near(&self, sample: &str) -> Vec<&str> {
        let mut names: Vec<&str> = self.0.keys().map(String::as_str).collect();
        names.sort_by_key(|name| strsim::levenshtein(name, sample));
        names.truncate(NEAR_NAMES);
        names
    }
}

/// Returns the names that a registry declares. `Registry` gives its descriptors away in its `Debug` form alone.
fn declared(registry: &Registry) -> BTreeSet<String> {
    const PREFIX: &str = "Prefix(\"";
    const NAME: &str = "Descriptor { name: \"";
    let text = format!("{registry:?}");
    let (mut rest, mut prefix, mut names) = (text.as_str(), "", BTreeSet::new());
    // The prefix of a registry comes before the metrics that it holds, and these come before the registries inside it.
    while let Some(at) = [PREFIX, NAME].iter().filter_map(|mark| rest.find(mark)).min() {
        let mark = if rest[at..].starts_with(PREFIX) { PREFIX } else { NAME };
        rest = &rest[at + mark.len()..];
        let found = rest.split('"').next().unwrap_or_default();
        if mark == PREFIX {
            prefix = found;
        } else {
            names.insert(format!("{prefix}_{found}"));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP tutti_edge_streams Streams open.\n# TYPE tutti_edge_streams gauge\n\
        tutti_edge_streams 7\n\
        # TYPE tutti_edge_streams_ended counter\n\
        tutti_edge_streams_ended_total{reason=\"left\"} 2\ntutti_edge_streams_ended_total{reason=\"life\"} 3\n# EOF\n";

    fn read(name: &str) -> anyhow::Result<Option<f64>> {
        Families::of("tutti-edge").unwrap().value(TEXT, name)
    }

    #[test]
    fn a_metric_is_summed_over_its_label_sets_or_is_the_one_that_is_named() {
        assert_eq!(read("tutti_edge_streams").unwrap(), Some(7.0));
        assert_eq!(read("tutti_edge_streams_ended_total").unwrap(), Some(5.0));
        assert_eq!(read("tutti_edge_streams_ended_total{reason=\"life\"}").unwrap(), Some(3.0));
    }

    #[test]
    fn a_counter_that_counted_nothing_is_0_and_a_name_that_is_misspelt_is_an_error() {
        assert_eq!(read("tutti_edge_streams_turned_away_total").unwrap(), Some(0.0));
        let error = read("tutti_edge_steams").unwrap_err().to_string();
        assert!(error.contains("tutti_edge_steams; near it are tutti_edge_streams,"), "{error}");
        assert!(read("tutti_edge_streams_total").is_err(), "it is a gauge");
        assert!(read("tutti_edge_replays").is_err(), "it is a counter");
        assert_eq!(read("tutti_edge_stale").unwrap(), None, "a gauge that has not been set is not 0");
    }

    #[test]
    fn every_service_declares_metrics_those_of_feeds_that_it_follows_among_them() {
        for service in ["tutti-edge", "tutti-ingest", "tutti-notify", "tutti-queue"] {
            assert!(Families::of(service).unwrap().has("tutti_redis_evicts"), "{service}");
        }
        let edge = Families::of("tutti-edge").unwrap();
        for name in ["tutti_feed_reconnects_total", "tutti_edge_streams_ended_total", "tutti_edge_rooms"] {
            assert!(edge.has(name), "{name} of {:?}", edge.0);
        }
        assert!(Families::of("tutti-egde").is_err());
    }
}
