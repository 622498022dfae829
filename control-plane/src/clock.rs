//! The two clocks, read in one place and handed inward.
//!
//! Deadlines are counted on the monotonic clock, records carry the calendar. Logic takes a [`Now`] and never reads a
//! clock by itself.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;

/// Milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UnixMillis(pub(crate) i64);

impl UnixMillis {
    pub(crate) fn timestamp(self) -> Timestamp {
        let nanos = i32::try_from(self.0.rem_euclid(1000)).unwrap_or(0) * 1_000_000;
        Timestamp { seconds: self.0.div_euclid(1000), nanos }
    }

    pub(crate) fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    pub(crate) fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// One reading of both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) instant: Instant,
    pub(crate) wall: UnixMillis,
}

impl Now {
    pub(crate) fn read() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), wall: UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)) }
    }
}

/// The calendar as retention goes by it: it follows the clock, but never runs faster than twice the time that really
/// passes. A clock that jumps ahead, or was wrong at a start, so removes nothing at once; one that goes back removes
/// nothing for as long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Calendar {
    at: UnixMillis,
    seen: Instant,
}

impl Calendar {
    /// Goes on from what was stored; time in which the control plane was off is caught up with.
    pub(crate) fn resume(stored: Option<UnixMillis>, now: Now) -> Self {
        Self { at: stored.unwrap_or(now.wall).min(now.wall), seen: now.instant }
    }

    /// Where it stands now.
    pub(crate) fn advance(&mut self, now: Now) -> UnixMillis {
        let passed = now.instant.saturating_duration_since(self.seen);
        self.at = self.at.plus(passed.saturating_mul(2)).min(now.wall);
        self.seen = now.instant;
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn after(now: Now, real: Duration, shown: i64) -> Now {
        Now { instant: now.instant + real, wall: UnixMillis(now.wall.0 + shown) }
    }

    #[test]
    fn the_calendar_follows_a_clock_that_runs_well() {
        let mut now = Now::read();
        let mut calendar = Calendar::resume(None, now);
        for _ in 0..100 {
            now = after(now, HOUR, 3_600_000);
            assert_eq!(calendar.advance(now), now.wall);
        }
    }

    #[test]
    fn a_jump_ahead_is_followed_slowly_and_one_back_at_once() {
        let first = Now::read();
        let mut calendar = Calendar::resume(None, first);
        let year = 365 * 24 * 3_600_000;
        let jumped = after(first, Duration::from_secs(60), year);
        assert_eq!(calendar.advance(jumped).0, first.wall.0 + 120_000);
        let right = after(first, Duration::from_secs(120), 120_000);
        assert_eq!(calendar.advance(right), right.wall);
        let back = after(first, Duration::from_secs(180), -3_600_000);
        assert_eq!(calendar.advance(back), back.wall);
        // The same after a restart under a wrong clock.
        let mut calendar = Calendar::resume(Some(first.wall), jumped);
        assert_eq!(calendar.advance(jumped), first.wall);
        assert_eq!(calendar.advance(after(jumped, HOUR, 0)).0, first.wall.0 + 7_200_000);
    }
}
