//! What `tutti bench` measures.

use std::path::PathBuf;

/// Options of `tutti bench`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Measure only one part
    #[arg(value_enum)]
    pub(super) only: Option<Part>,
    /// People who wait
    #[arg(long, default_value_t = 1_000_000)]
    pub(super) waiting: u64,
    /// Streams: of visitors that receive their place once a second; of users' devices
    #[arg(long, default_value_t = 10_000)]
    pub(super) streams: usize,
    /// Notifications a second
    #[arg(long, default_value_t = 2000)]
    pub(super) rate: u64,
    /// How often rates of scripts and shares of a core are measured; the median counts
    #[arg(long, default_value_t = 3)]
    pub(super) rounds: usize,
    /// Streams of the map that receive nothing, to measure their memory: each takes a file descriptor here and one of
    /// the edge, and both count where a limit is that of the machine. The goal is for 18,000
    #[arg(long, default_value_t = 9000)]
    pub(super) idle_streams: usize,
    /// Devices on the map that an edge is started for; each sends a fix once in 5 s. The goal is for 100,000, which a
    /// small machine cannot publish beside everything else
    #[arg(long, default_value_t = 20_000)]
    pub(super) devices: u32,
    /// A file for plots in Markdown (Mermaid) of how the costs of the map grow with streams, devices and edges; then
    /// nothing else of the map is measured
    #[arg(long)]
    pub(super) plots: Option<PathBuf>,
    /// Kafka, host:port, for positions and notifications; by default the embedded broker, which holds each record
    /// back for up to 20 ms
    #[arg(long, env = "KAFKA")]
    pub(super) kafka: Option<String>,
    /// Use the ports from this one up
    #[arg(long, default_value_t = 31_000)]
    pub(super) port_base: u16,
}

/// A part of the benchmarks.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    WaitingRoom,
    Inboxes,
    Map,
}
