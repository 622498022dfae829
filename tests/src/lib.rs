//! Harness of the end-to-end tests: starts the real binaries on loopback, talks to them as users do, and stops them by
//! their own process ids.
//!
//! It holds no assertions about behaviour; those stand in `tests/e2e`. The binaries are taken from the build directory
//! that the running test lies in: `cargo build --workspace --bins` must have made them.

mod aws;
mod certificates;
mod disk;
mod kdc;
mod process;
mod proxy;
mod random;
mod samba;
mod stack;

pub use aws::Aws;
pub use certificates::Certificates;
pub use disk::Disk;
pub use kdc::{Kdc, KdcOptions};
pub use process::{Output, Process, Streaming};
pub use proxy::{Cut, Direction, Proxy};
pub use random::Random;
pub use samba::{Carried, Samba};
pub use stack::{Agent, ControlPlane, PASSWORD, Stack, USER, Windows, WindowsOptions, get};

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Path of one of the workspace's binaries. `LICTOR_TESTS_<NAME>`, such as `LICTOR_TESTS_LICTOR_AGENT`, names another build of
/// one, by which `scripts/skew` lets two versions meet.
///
/// # Errors
/// When it has not been built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let variable = format!("LICTOR_TESTS_{}", name.replace('-', "_").to_uppercase());
    if let Some(other) = std::env::var_os(&variable) {
        let path = PathBuf::from(other);
        if !path.is_file() {
            bail!("{variable} names no program: {}", path.display());
        }
        return Ok(path);
    }
    let test = std::env::current_exe().context("failed to find the running test")?;
    let directory = test.parent().and_then(Path::parent).context("the running test lies in no build directory")?;
    let path = directory.join(name);
    if !path.is_file() {
        bail!("{} is missing: run `cargo build --workspace --bins` first", path.display());
    }
    Ok(path)
}

/// Repeats `check` until it gives a value.
///
/// # Errors
/// When `deadline` passes first; the last reason is in the error.
pub fn eventually<T>(what: &str, deadline: Duration, mut check: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        match check() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end => {
                return Err(error.context(format!("still not so after {deadline:?}: {what}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(25)),
        }
    }
}
