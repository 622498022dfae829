//! What the kernel allows this process: open files and memory.

use rustix::process::{Resource, getrlimit};

use super::report::Book;
use super::{advice, size};
use crate::admission::memory;
use crate::config::Config;

/// `config`: nothing when it has mistakes.
pub(super) fn look(config: Option<&Config>, book: &mut Book) {
    // The agent raises its bound to the hard one when it starts.
    let most = getrlimit(Resource::Nofile).maximum;
    let wanted = config.map_or(LEAST_FILES, wanted);
    match most {
        None => book.passed("open_files", "no bound"),
        Some(most) if most < wanted => {
            let message = format!("at most {most} files may be open, and {wanted} may be needed");
            let finding = advice::OPEN_FILES.about(message);
            if most < LEAST_FILES {
                book.failed("open_files", "", finding)
            } else {
                book.warn("open_files", "", finding)
            }
        }
        Some(most) => book.passed("open_files", format!("at most {most}, and {wanted} may be needed")),
    }
    let Some(config) = config else { return };
    let (used, limit) = memory(config.admission.cgroup_root.clone());
    match (limit, used) {
        (None, _) => book.passed("memory", "the control group has no limit, or does not show it"),
        (Some(limit), used) => {
            let used = used.unwrap_or_default();
            let text = format!("{} of {} in use", size(used), size(limit));
            let share = u64::from(config.admission.memory_percent.unwrap_or(95));
            if used > limit / 100 * share || limit < LITTLE_MEMORY {
                book.warn("memory", "", advice::MEMORY.about(text));
            } else {
                book.passed("memory", text);
            }
        }
    }
}

/// A session has a second connection while input or a stop overtakes a Receive; a task may have its output in files.
fn wanted(config: &Config) -> u64 {
    u64::from(config.pool.max_sessions) * 2 + u64::from(config.slots) * 2 + LEAST_FILES
}

/// For the program itself: libraries, journal, HTTP endpoints, the link, KDCs.
const LEAST_FILES: u64 = 64;
/// An idle agent takes some 20 MiB; windows of output, scripts and tickets come on top.
const LITTLE_MEMORY: u64 = 64 << 20;
