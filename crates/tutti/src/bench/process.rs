//! CPU and memory of processes, as Linux reports them.

use anyhow::{Context as _, ensure};

pub(super) fn rss(pid: u32) -> anyhow::Result<u64> {
    memory(pid, "VmRSS:")
}

/// Returns a figure of the memory of a process, such as `VmRSS:`, in bytes.
pub(super) fn memory(pid: u32, figure: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(figure)).context("Linux tells it")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kilobytes * 1024)
}

/// Returns the CPU seconds of each of these processes.
pub(super) fn cpus(pids: &[u32]) -> anyhow::Result<Vec<f64>> {
    pids.iter().map(|pid| cpu_seconds(*pid)).collect()
}

/// Returns the CPU seconds, of user and system, since a process began.
pub(super) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    cpu_of(&format!("/proc/{pid}/stat"))
}

pub(super) fn cpu_of(path: &str) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(path)?;
    let after = stat.rsplit(") ").next().context("Linux tells it")?;
    let ticks: Vec<f64> = after.split(' ').skip(11).take(2).filter_map(|n| n.parse().ok()).collect();
    ensure!(ticks.len() == 2, "{stat}");
    // USER_HZ is 100 on every known Linux.
    Ok((ticks[0] + ticks[1]) / 100.0)
}
