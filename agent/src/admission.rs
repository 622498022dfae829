//! Whether the agent asks for more work: not while its control group is short of memory or processor time.
//!
//! Under pressure it grants no new credit. It never takes any back, and accepts what was assigned against credit that was
//! granted before: a promise is a promise, and handing back would cost more than doing it. [`Gate`] decides without I/O;
//! [`Admission`] feeds it from the files of the control group. Run by `app`, followed by `link`.

mod cgroup;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::policy::Policies;
use crate::telemetry::Metrics;
use cgroup::{ControlGroup, Reading};

/// Memory that the control group of this process uses, and its limit, as far as they are known.
pub(crate) fn memory(cgroup_root: PathBuf) -> (Option<u64>, Option<u64>) {
    let Reading { memory_used, memory_limit, .. } = ControlGroup::of_this_process(cgroup_root).read();
    (memory_used, memory_limit)
}

/// From which shares on no more work is asked for. Nothing: whatever the share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Thresholds {
    /// Of the memory limit, percent.
    pub(crate) memory: Option<u32>,
    /// Of the processor limit, percent.
    pub(crate) cpu: Option<u32>,
    /// Of the time, in which everything waited for memory, percent.
    pub(crate) stall: Option<u32>,
}

/// What the link goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// New credit may be granted.
    pub(crate) open: bool,
    /// Most tasks to ask for at once, when that is less than the slots.
    pub(crate) most: Option<u32>,
}

impl Default for Room {
    fn default() -> Self {
        Self { open: true, most: None }
    }
}

/// Shares in use, percent. Nothing: no limit is known, or it cannot be told yet.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Shares {
    memory: Option<f64>,
    cpu: Option<f64>,
    stall: Option<f64>,
}

/// What keeps the agent from asking for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Closed {
    /// Memory is nearly used up.
    pub(crate) memory: bool,
    /// Processor time is nearly used up.
    pub(crate) cpu: bool,
    /// Too much time is lost waiting for memory.
    pub(crate) stall: bool,
}

impl Closed {
    fn any(self) -> bool {
        self.memory || self.cpu || self.stall
    }
}

/// Decides. Closes at a threshold and opens well below it, so that it does not flap.
#[derive(Debug)]
struct Gate {
    thresholds: Thresholds,
    closed: Closed,
}

impl Gate {
    fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, closed: Closed::default() }
    }

    fn observe(&mut self, shares: Shares) -> Closed {
        let Thresholds { memory, cpu, stall } = self.thresholds;
        let was = self.closed;
        self.closed = Closed {
            memory: closed(was.memory, memory, shares.memory),
            cpu: closed(was.cpu, cpu, shares.cpu),
            stall: closed(was.stall, stall, shares.stall),
        };
        self.closed
    }
}

fn closed(was: bool, threshold: Option<u32>, share: Option<f64>) -> bool {
    match (threshold.map(f64::from), share) {
        (Some(threshold), Some(share)) if was => share > threshold - HYSTERESIS.min(threshold / 2.0),
        (Some(threshold), Some(share)) => share >= threshold,
        // Without a limit there is nothing to run out of.
        (None, _) | (_, None) => false,
    }
}

/// Turns readings of counters into shares.
#[derive(Debug, Default)]
struct Meter {
    /// When, and processor time used until then.
    used: VecDeque<(Duration, Duration)>,
}

impl Meter {
    fn shares(&mut self, at: Duration, reading: &Reading) -> Shares {
        let memory =
            reading.memory_limit.zip(reading.memory_used).map(|(limit, used)| percent(used as f64, limit as f64));
        let cpu = match (reading.cpu_used, reading.cpu_limit) {
            (Some(used), Some(limit)) => self.cpu(at, used, limit),
            _ => {
                self.used.clear();
                None
            }
        };
        Shares { memory, cpu, stall: reading.stall }
    }

    /// Over the last seconds, as one busy moment is no shortage. `limit` is in processors.
    fn cpu(&mut self, at: Duration, used: Duration, limit: f64) -> Option<f64> {
        // A counter that falls belongs to another group.
        if self.used.back().is_some_and(|(_, before)| used < *before) {
            self.used.clear();
        }
        self.used.push_back((at, used));
        while self.used.len() > 2 && self.used.front().is_some_and(|(first, _)| at.saturating_sub(*first) > CPU_WINDOW)
        {
            self.used.pop_front();
        }
        let (first, before) = *self.used.front()?;
        let passed = at.saturating_sub(first);
        // A share over less says little.
        (passed >= CPU_WINDOW / 2)
            .then(|| percent(used.saturating_sub(before).as_secs_f64(), passed.as_secs_f64() * limit))
    }
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole * 100.0 } else { 100.0 }
}

/// Watches the control group.
#[derive(Debug)]
pub(crate) struct Admission {
    group: ControlGroup,
    thresholds: Thresholds,
    policies: Arc<Policies>,
    metrics: Arc<Metrics>,
    room: watch::Sender<Room>,
}

impl Admission {
    /// Watches the group of this process below `root`.
    pub(crate) fn new(root: PathBuf, thresholds: Thresholds, policies: Arc<Policies>, metrics: Arc<Metrics>) -> Self {
        let (room, _) = watch::channel(Room { open: true, most: policies.current().concurrent() });
        Self { group: ControlGroup::of_this_process(root), thresholds, policies, metrics, room }
    }

    /// What the link goes by.
    pub(crate) fn room(&self) -> watch::Receiver<Room> {
        self.room.subscribe()
    }

    /// Watches until `stop`.
    pub(crate) async fn follow(self, stop: CancellationToken) {
        let (mut gate, mut meter) = (Gate::new(self.thresholds), Meter::default());
        let begun = Instant::now();
        let mut told = false;
        loop {
            let group = self.group.clone();
            let reading = tokio::task::spawn_blocking(move || group.read()).await.unwrap_or_default();
            if !std::mem::replace(&mut told, true) {
                self.tell_what_is_unknown(&reading);
            }
            let was = gate.closed;
            let closed = gate.observe(meter.shares(begun.elapsed(), &reading));
            if closed != was {
                tracing::info!(memory = closed.memory, cpu = closed.cpu, stall = closed.stall, "Admission changed");
            }
            self.metrics.admission_closed(closed);
            let room = Room { open: !closed.any(), most: self.policies.current().concurrent() };
            self.room.send_if_modified(|current| std::mem::replace(current, room) != room);
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(INTERVAL) => {}
            }
        }
    }

    fn tell_what_is_unknown(&self, reading: &Reading) {
        let Thresholds { memory, cpu, stall } = self.thresholds;
        let known = |known: bool| if known { "known" } else { "no limit known" };
        let memory_known = reading.memory_limit.is_some() && reading.memory_used.is_some();
        let cpu_known = reading.cpu_limit.is_some() && reading.cpu_used.is_some();
        let missing = (memory.is_some() && !memory_known)
            || (cpu.is_some() && !cpu_known)
            || (stall.is_some() && reading.stall.is_none());
        if missing {
            tracing::info!(
                memory = known(memory_known),
                cpu = known(cpu_known),
                stall = known(reading.stall.is_some()),
                "The control group does not tell everything that admission is set to look at"
            );
        }
    }
}

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Points below its threshold, at which a gate opens again.
const HYSTERESIS: f64 = 10.0;
/// What a share of processor time is measured over.
const CPU_WINDOW: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(memory: f64) -> Shares {
        Shares { memory: Some(memory), ..Shares::default() }
    }

    #[test]
    fn it_closes_at_the_threshold_and_opens_well_below() {
        let mut gate = Gate::new(Thresholds { memory: Some(90), cpu: None, stall: Some(4) });
        let observed: Vec<bool> =
            [0.0, 89.9, 90.0, 89.0, 80.1, 80.0, 89.9, 95.0].map(|share| gate.observe(shares(share)).memory).into();
        assert_eq!(observed, [false, false, true, true, true, false, false, true]);
        // A limit that goes away closes nothing any more.
        assert_eq!(gate.observe(Shares::default()), Closed::default());
        // What is switched off closes nothing, and a low threshold opens above nothing.
        let all = Shares { memory: Some(1.0), cpu: Some(200.0), stall: Some(4.0) };
        assert_eq!(gate.observe(all), Closed { stall: true, ..Closed::default() });
        assert!(gate.observe(Shares { stall: Some(2.1), ..all }).stall);
        assert!(!gate.observe(Shares { stall: Some(2.0), ..all }).any());
    }

    #[test]
    fn processor_time_is_a_share_of_the_limit_over_some_seconds() {
        let mut meter = Meter::default();
        let reading = |used: f64| Reading {
            cpu_used: Some(Duration::from_secs_f64(used)),
            cpu_limit: Some(2.0),
            ..Reading::default()
        };
        let mut at = |second: u64, used: f64| meter.shares(Duration::from_secs(second), &reading(used)).cpu;
        assert_eq!(at(0, 100.0), None);
        assert_eq!(at(4, 108.0), None, "too soon");
        assert_eq!(at(5, 110.0), Some(100.0));
        assert_eq!(at(10, 110.0), Some(50.0));
        // The first seconds are forgotten.
        assert_eq!(at(15, 110.0), Some(0.0));
        assert_eq!(at(20, 115.0), Some(25.0));
        // Another group's counter.
        assert_eq!(at(21, 1.0), None);
        assert_eq!(meter.shares(Duration::from_secs(30), &Reading::default()), Shares::default());
    }
}
