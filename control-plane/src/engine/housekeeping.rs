//! What the engine does beside its work: it removes what is kept long enough and notes how far the calendar has come.
//!
//! One small step at a time, in the transaction of a turn, so that no heartbeat waits for it. It decides by a calendar
//! that a jump of the clock cannot push ahead, and it must never touch a task that is not final.

use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::Engine;
use crate::clock::{Calendar, Now, UnixMillis};
use crate::store::{StoreError, retention};

/// How long what is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    pub(crate) tasks: Duration,
    pub(crate) outputs: Duration,
    pub(crate) output_bytes: u64,
}

/// Where housekeeping stands.
#[derive(Debug)]
pub(super) struct Housekeeping {
    calendar: Calendar,
    /// Bytes of output in the database.
    kept: u64,
    /// When the next step is due.
    pub(super) next: Instant,
    /// The clock was found far ahead of the calendar, and that was said.
    told: bool,
}

impl Housekeeping {
    /// Before [`Engine::resume_housekeeping`] it only says that it is due.
    pub(super) fn new(now: Now) -> Self {
        Self { calendar: Calendar::resume(None, now), kept: 0, next: now.instant, told: false }
    }

    /// Output was stored.
    pub(super) fn stored(&mut self, bytes: u64) {
        self.kept = self.kept.saturating_add(bytes);
    }
}

impl Engine {
    /// Reads from the database where housekeeping stood.
    pub(super) async fn resume_housekeeping(&mut self, now: Now) -> Result<(), StoreError> {
        let stored = retention::calendar(&mut self.parts.writer).await?;
        self.housekeeping = Housekeeping {
            calendar: Calendar::resume(stored, now),
            kept: retention::kept_output(&mut self.parts.writer).await?,
            next: now.instant,
            told: self.housekeeping.told,
        };
        Ok(())
    }

    /// One step, if one is due.
    pub(super) async fn keep_house(&mut self, now: Now) -> Result<(), StoreError> {
        if now.instant < self.housekeeping.next {
            return Ok(());
        }
        let today = self.housekeeping.calendar.advance(now);
        self.tell_of_jumps(today, now);
        let more = self.remove_something(today, now).await?;
        let writer = self.database().await?;
        retention::save_calendar(writer, today).await?;
        if more {
            self.housekeeping.next = now.instant + STEP_PAUSE;
        } else {
            let bytes = retention::database_bytes(writer).await?;
            self.parts.metrics.database(bytes, self.housekeeping.kept);
            let Retention { tasks, outputs, .. } = self.parts.retention;
            self.housekeeping.next = now.instant + LONGEST_PAUSE.min(tasks / 4).min(outputs / 4);
        }
        Ok(())
    }

    /// True when there may be more to remove.
    async fn remove_something(&mut self, today: UnixMillis, now: Now) -> Result<bool, StoreError> {
        let Retention { tasks, outputs, output_bytes } = self.parts.retention;
        // A task goes whole, so its output goes with it at the latest.
        let expired = today.minus(outputs.min(tasks));
        let bound = if self.housekeeping.kept > output_bytes { UnixMillis(i64::MAX) } else { expired };
        let writer = self.database().await?;
        if let Some(removed) = retention::remove_output(writer, bound, now.wall).await? {
            debug!(task_id = removed.task_id, bytes = removed.bytes, "Output removed");
            self.housekeeping.kept = self.housekeeping.kept.saturating_sub(removed.bytes);
            self.parts.metrics.output_removed(removed.bytes);
            self.touched.insert(removed.task_id);
            return Ok(true);
        }
        let removed = retention::remove_tasks(writer, today.minus(tasks)).await?;
        if removed > 0 {
            debug!(tasks = removed, "Finished tasks removed");
            self.parts.metrics.tasks_removed(removed);
            return Ok(true);
        }
        retention::give_back_space(writer).await
    }

    fn tell_of_jumps(&mut self, today: UnixMillis, now: Now) {
        let ahead = now.wall.0.saturating_sub(today.0) > JUMP_MILLIS;
        if ahead && !self.housekeeping.told {
            warn!(
                behind_seconds = (now.wall.0 - today.0) / 1000,
                "The clock is far ahead of what passed; retention follows slowly, at twice the pace of time"
            );
        }
        self.housekeeping.told = ahead;
    }
}

/// Between two steps while there is more to remove: work goes first.
const STEP_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// More than slewing and summer time make.
const JUMP_MILLIS: i64 = 2 * 3600 * 1000;
