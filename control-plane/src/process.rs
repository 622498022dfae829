//! What the program asks of the kernel for its own process: no core dumps, nobody else looking in, enough files; and what it
//! owes the kernel as the first process of a container, which is every orphan's parent.
//!
//! A core holds every secret that was in memory, and whoever may trace a process or read its /proc files reads them too.
//! So no core is made, and the files of this process under /proc belong to root. [`ALLOW`] leaves all that as it was,
//! for debugging. Called first thing by the command line; it must never keep the program from starting.

use std::io;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, WaitOptions, getrlimit, set_dumpable_behavior, setrlimit, wait,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;

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

/// Takes in processes that end, where this one is the first of its container: those that somebody began in it and left behind
/// would stay as zombies otherwise. We begin none ourselves, so that nobody else waits for one. Ends when dropped.
///
/// # Errors
/// When the ends of processes cannot be listened to.
pub(crate) fn take_in_orphans() -> io::Result<Option<AbortOnDropHandle<()>>> {
    if std::process::id() != 1 {
        return Ok(None);
    }
    let mut children = signal(SignalKind::child())?;
    Ok(Some(AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
            if children.recv().await.is_none() {
                return;
            }
        }
    }))))
}

/// How many files the process may have open; nothing when there is no bound.
pub(crate) fn file_bound() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Says in the log what [`guard`] could not do.
pub(crate) fn report(guarded: io::Result<()>) {
    if let Err(error) = guarded {
        tracing::warn!(error = %error, "The process could not be guarded against core dumps and tracing");
    }
}
