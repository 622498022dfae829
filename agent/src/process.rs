//! What the program asks of the kernel for its own process: no core dumps, nobody else looking in, enough files.
//!
//! A core holds every secret that was in memory, and whoever may trace a process or read its /proc files reads them too.
//! So no core is made, and the files of this process under /proc belong to root. [`ALLOW`] leaves all that as it was,
//! for debugging. Called first thing by the command line; it must never keep the program from starting.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// Environment variable; `allow` permits core dumps and tracing.
pub(crate) const ALLOW: &str = "LICTOR_CORE_DUMPS";

/// Forbids core dumps and raises the bound of open files to what the process may have. What failed is for the log, once
/// there is one.
pub(crate) fn guard() -> io::Result<()> {
    let files = getrlimit(Resource::Nofile);
    if files.current != files.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum })?;
    }
    if std::env::var_os(ALLOW).is_some_and(|value| value == "allow") {
        return Ok(());
    }
    // Both: a pattern that pipes cores into a program ignores the bound.
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Says in the log what [`guard`] could not do.
pub(crate) fn report(guarded: io::Result<()>) {
    if let Err(error) = guarded {
        tracing::warn!(error = %error, "The process could not be guarded against core dumps and tracing");
    }
}

/// Lets SIGTERM and SIGINT wait, also across the start of another program in this process.
pub(crate) fn hold_signals() {
    // It fails for no signal that exists.
    let _held = ends().thread_block();
}

/// The same where else they were lost: the kernel sends the first process of a container none that it does not handle. Any
/// other is better off without: while nobody listens, one that is stuck, on a file system that hangs say, could not be ended.
pub(crate) fn hold_signals_of_the_first() {
    if std::process::id() == 1 {
        hold_signals();
    }
}

/// Lets them come, also those that have waited. Whoever calls this listens already.
pub(crate) fn let_signals_come() {
    let _let = ends().thread_unblock();
}

fn ends() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT].into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_process_of_a_container_holds_signals_from_its_first_line_on() {
        let held = || ends().iter().all(|signal| SigSet::thread_get_mask().unwrap().contains(signal));
        assert_ne!(std::process::id(), 1, "tests have a parent");
        hold_signals_of_the_first();
        assert!(!held());
        hold_signals();
        assert!(held());
        let_signals_come();
        assert!(!held());
    }
}
