//! Figures of processes, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// CPU time of a process so far, of all threads that live. Neither clients nor the host end threads during a round.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("failed to list threads")? {
        // Nanoseconds on a processor are the first figure; `stat` counts in hundredths of a second.
        let figures = fs::read_to_string(task?.path().join("schedstat")).context("the kernel keeps no schedstat")?;
        let figure = figures.split_whitespace().next().context("an empty schedstat")?;
        nanoseconds += figure.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Peak resident memory of a process so far, in bytes.
pub(crate) fn peak_memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
}

/// The value in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
