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

/// Lets them come, also those that have waited. Whoever calls this listens already.
pub(crate) fn let_signals_come() {
    let _let = ends().thread_unblock();
}

fn ends() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT].into_iter().collect()
}
