//! The processes that the bootstrap script began: found under /proc, signalled, reaped.
//!
//! The agent is their subreaper, so that every one of them stays a descendant of it, whoever its parent was. It must
//! never touch another process, and never show a command line: those hold passwords. Called by `stage`, and by the
//! command line at the end.

use std::collections::HashMap;
use std::fs;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};

/// A living process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) pid: i32,
    /// As the kernel has it: at most 15 bytes.
    pub(super) name: String,
    /// When it began, in the kernel's ticks: with its number it is that one and no later one.
    began: u64,
}

/// Leaves these and all below them out of account from now on, once.
pub(super) fn leave_out(strangers: Vec<(i32, u64)>) {
    let _first = STRANGERS.set(strangers);
}

/// Those that are left out.
pub(super) fn strangers() -> &'static [(i32, u64)] {
    STRANGERS.get().map(Vec::as_slice).unwrap_or_default()
}

/// All that live now, as they can be left out.
pub(super) fn present() -> Vec<(i32, u64)> {
    descendants().into_iter().map(|member| (member.pid, member.began)).collect()
}

/// Every living descendant of this process that is not left out.
pub(super) fn descendants() -> Vec<Member> {
    let mut children: HashMap<i32, Vec<Member>> = HashMap::new();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // Processes come and go.
        let Some((parent, name, began)) = fs::read(entry.path().join("stat")).ok().and_then(|stat| parse(&stat)) else {
            continue;
        };
        children.entry(parent).or_default().push(Member { pid, name, began });
    }
    below(i32::try_from(std::process::id()).unwrap_or(-1), children, strangers())
}

fn below(root: i32, mut children: HashMap<i32, Vec<Member>>, strangers: &[(i32, u64)]) -> Vec<Member> {
    let mut found = Vec::new();
    let mut waiting = vec![root];
    while let Some(parent) = waiting.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            if strangers.contains(&(child.pid, child.began)) {
                continue;
            }
            waiting.push(child.pid);
            found.push(child);
        }
    }
    found
}

/// Parent, name and beginning, of one that lives: `123 (name) S 1 ...`. The name may hold anything, parentheses too.
fn parse(stat: &[u8]) -> Option<(i32, String, u64)> {
    let stat = String::from_utf8_lossy(stat);
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let mut fields = tail.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let began = fields.nth(BEGAN)?.parse().ok()?;
    let name = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    (!matches!(state, "Z" | "X")).then_some((parent, name, began))
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

/// Set before the script runs, and again in the agent: what an image's entrypoint began before it became the agent.
static STRANGERS: OnceLock<Vec<(i32, u64)>> = OnceLock::new();
/// Fields between the parent and the beginning.
const BEGAN: usize = 17;
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
        let rest = "1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0";
        let parse_text = |text: &str| parse(format!("{text} {rest}").as_bytes());
        assert_eq!(parse_text("12 (a) b (c) S 7"), Some((7, "a) b (c".into(), 4711)));
        assert_eq!(parse_text("12 (x\x1b) R 7"), Some((7, "x?".into(), 4711)));
        assert_eq!(parse_text("12 (x) Z 7"), None);
        for broken in [&b"12 (x) S 7 1 1 0"[..], b"", b"12", b"12 (x", b"12 (x)", b"12 (x) S", b"12 (x) S y"] {
            assert_eq!(parse(broken), None);
        }
    }

    #[test]
    fn who_was_there_before_is_left_out_with_all_below() {
        let member = |pid, began| Member { pid, name: String::new(), began };
        let children = || {
            HashMap::from([
                (1, vec![member(2, 10), member(3, 20)]),
                (2, vec![member(4, 30)]),
                (3, vec![member(5, 40)]),
                (9, vec![member(8, 1)]),
            ])
        };
        let pids = |strangers: &[(i32, u64)]| {
            let mut pids: Vec<i32> = below(1, children(), strangers).iter().map(|member| member.pid).collect();
            pids.sort_unstable();
            pids
        };
        assert_eq!(pids(&[]), [2, 3, 4, 5]);
        assert_eq!(pids(&[(2, 10)]), [3, 5]);
        // A number that was used again.
        assert_eq!(pids(&[(2, 9)]), [2, 3, 4, 5]);
    }
}
