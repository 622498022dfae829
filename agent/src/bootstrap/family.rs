//! The processes that the bootstrap script began: found under /proc, signalled, reaped.
//!
//! The agent is their subreaper, so that every one of them stays a descendant of it, whoever its parent was. It must
//! never touch another process, and never show a command line: those hold passwords. Called by `stage`, and by the
//! command line at the end.

use std::collections::HashMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};

/// A living process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) pid: i32,
    /// As the kernel has it: at most 15 bytes.
    pub(super) name: String,
}

/// Every living descendant of this process.
pub(super) fn descendants() -> Vec<Member> {
    let mut children: HashMap<i32, Vec<Member>> = HashMap::new();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // Processes come and go.
        let Some((parent, name)) = fs::read(entry.path().join("stat")).ok().and_then(|stat| parse(&stat)) else {
            continue;
        };
        children.entry(parent).or_default().push(Member { pid, name });
    }
    let mut found = Vec::new();
    let mut waiting = vec![i32::try_from(std::process::id()).unwrap_or(-1)];
    while let Some(parent) = waiting.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            waiting.push(child.pid);
            found.push(child);
        }
    }
    found
}

/// Parent and name, of one that lives: `123 (name) S 1 ...`. The name may hold anything, parentheses too.
fn parse(stat: &[u8]) -> Option<(i32, String)> {
    let stat = String::from_utf8_lossy(stat);
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let mut fields = tail.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let name = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    (!matches!(state, "Z" | "X")).then_some((parent, name))
}

/// Takes in what has ended.
pub(crate) fn reap() -> Vec<(i32, WaitStatus)> {
    let mut reaped = Vec::new();
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        reaped.push((pid.as_raw_nonzero().get(), status));
    }
    reaped
}

/// Sends a signal to every living descendant, and says how many there were.
pub(super) fn signal_all(signal: Signal) -> usize {
    let members = descendants();
    for member in &members {
        if let Some(pid) = Pid::from_raw(member.pid) {
            // It may have ended since.
            let _ended = kill_process(pid, signal);
        }
    }
    members.len()
}

/// How many live.
pub(crate) fn count() -> usize {
    descendants().len()
}

/// Ends every descendant: asked first, killed after a moment. Blocks; for when nothing else runs any more.
pub(crate) fn end() {
    if signal_all(Signal::TERM) == 0 {
        return;
    }
    let begun = Instant::now();
    loop {
        reap();
        let left = if begun.elapsed() < GRACE { count() } else { signal_all(Signal::KILL) };
        if left == 0 || begun.elapsed() > GRACE + INSIST {
            return;
        }
        thread::sleep(PAUSE);
    }
}

/// Between being asked and being killed.
const GRACE: Duration = Duration::from_secs(2);
/// Then what begins new processes faster than they are killed, or hangs in the kernel, is left to whoever ends the
/// container.
const INSIST: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything() {
        assert_eq!(parse(b"12 (a) b (c) S 7 1 1 0"), Some((7, "a) b (c".into())));
        assert_eq!(parse(b"12 (x\x1b) R 7 1"), Some((7, "x?".into())));
        assert_eq!(parse(b"12 (x) Z 7 1"), None);
        for broken in [&b""[..], b"12", b"12 (x", b"12 (x)", b"12 (x) S", b"12 (x) S y"] {
            assert_eq!(parse(broken), None);
        }
    }
}
