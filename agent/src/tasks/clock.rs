//! Moments that a later process can measure from, whatever people do to the clock meanwhile.
//!
//! Within one run of the machine its uptime tells how long ago something was; the wall clock is asked only when the machine
//! was started anew, and is not believed far. Pure but for [`Stamp::now`]. Used by the engine and the journal.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The wall clock, milliseconds since 1970. 0: not known.
    pub(crate) wall_millis: u64,
    /// Which run of the machine; empty when not known.
    pub(crate) boot_id: String,
    /// How long the machine had been up, in milliseconds.
    pub(crate) uptime_millis: u64,
}

impl Stamp {
    /// This moment.
    pub(crate) fn now() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
        let uptime = uptime.split_ascii_whitespace().next().and_then(|seconds| seconds.parse::<f64>().ok());
        Self {
            wall_millis: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
            boot_id: boot_id.trim().chars().take(MAX_BOOT_ID).collect(),
            uptime_millis: uptime
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .map_or(0, |uptime| u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Whether anything can be measured from it.
    pub(crate) fn is_known(&self) -> bool {
        self.wall_millis > 0
    }

    /// What is left at `now` of a `timeout` that began at this moment. Never more than the timeout; and where only the wall
    /// clock can tell, which may have been put forward, never so little that a task ends at once.
    pub(crate) fn remaining(&self, now: &Self, timeout: Duration) -> Duration {
        let same_run = !self.boot_id.is_empty() && self.boot_id == now.boot_id;
        match now.uptime_millis.checked_sub(self.uptime_millis) {
            Some(elapsed) if same_run => timeout.saturating_sub(Duration::from_millis(elapsed)),
            _ => {
                let elapsed = Duration::from_millis(now.wall_millis.saturating_sub(self.wall_millis));
                timeout.saturating_sub(elapsed).max(timeout.min(LEAST))
            }
        }
    }
}

/// Longer ones are cut: they come from a file.
const MAX_BOOT_ID: usize = 64;
/// What a task keeps when only the wall clock says that its time is over.
const LEAST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const MINUTE: u64 = 60_000;

    fn stamp(boot: &str, wall_minutes: u64, uptime_minutes: u64) -> Stamp {
        let wall_millis = 1_800_000_000_000 + wall_minutes * MINUTE;
        Stamp { wall_millis, boot_id: boot.to_owned(), uptime_millis: uptime_minutes * MINUTE }
    }

    #[test]
    fn a_clock_put_an_hour_forward_or_back_changes_nothing_while_the_machine_runs() {
        let begin = stamp("a", 100, 10);
        for wall in [40, 110, 170] {
            let left = begin.remaining(&stamp("a", wall, 20), HOUR);
            assert_eq!(left, HOUR - Duration::from_secs(600), "the wall clock says {wall}");
        }
        assert_eq!(begin.remaining(&stamp("a", 110, 71), HOUR), Duration::ZERO);
    }

    #[test]
    fn after_a_start_of_the_machine_a_jump_neither_ends_a_task_at_once_nor_lets_it_run_on() {
        let begin = stamp("a", 100, 10);
        assert_eq!(begin.remaining(&stamp("b", 130, 1), HOUR), HOUR / 2);
        assert_eq!(begin.remaining(&stamp("b", 190, 1), HOUR), LEAST);
        assert_eq!(begin.remaining(&stamp("b", 40, 1), HOUR), HOUR);
        assert_eq!(begin.remaining(&stamp("b", 190, 1), LEAST / 2), LEAST / 2);
        // A container whose uptime is its own.
        assert_eq!(begin.remaining(&stamp("a", 130, 1), HOUR), HOUR / 2);
        assert_eq!(stamp("", 100, 10).remaining(&stamp("", 130, 40), HOUR), HOUR / 2);
    }

    #[test]
    fn this_machine_has_an_uptime_that_moves_on() {
        let (first, second) = (Stamp::now(), Stamp::now());
        assert!(first.is_known() && !first.boot_id.is_empty() && first.uptime_millis > 0, "{first:?}");
        assert!(second.uptime_millis >= first.uptime_millis);
        assert!(first.remaining(&second, HOUR) <= HOUR);
    }
}
