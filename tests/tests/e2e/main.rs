//! The whole product, as its users meet it: real binaries on loopback, simulated Windows hosts, the command line.
//!
//! One binary with a module per subject.

mod access;
mod admission;
mod agent_doctor;
mod backup;
mod batches;
mod bootstrap;
mod deaths;
mod delegate;
mod direct;
mod disks;
mod doctor;
mod exchanges;
mod first_light;
mod hostile;
mod identity;
mod import;
mod kerberos;
mod outages;
mod policy;
mod polling;
mod previous;
mod proxies;
mod restarts;
mod rolling;
mod scripts;
mod secrecy;
mod secrets;
mod settings;
mod traces;
mod volume;

use std::time::Duration;

use anyhow::Result;
use lictor_tests::{PASSWORD, Stack, Windows, WindowsOptions};

/// Long enough for any step on a busy machine; a test that works never waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Final states as the command line prints them.
const FINAL: &[&str] = &["succeeded", "failed", "cancelled", "timed_out", "rejected", "unknown"];

/// A host that takes sealed NTLM over HTTP, and the credential `ntlm` for it.
fn ntlm_host(stack: &Stack) -> Result<Windows> {
    let windows = stack.windows(
        "win-a",
        &WindowsOptions { tls: false, arguments: &["--auth", "ntlm,negotiate"], ..WindowsOptions::default() },
    )?;
    stack.credential("ntlm", PASSWORD, &["--auth", "negotiate", "--scheme", "http", "--port", &windows.port])?;
    Ok(windows)
}

/// A host that takes Basic over HTTPS with a private authority, and the credential `basic` for it.
fn basic_host(stack: &Stack) -> Result<Windows> {
    let windows = stack.windows(
        "win-b",
        &WindowsOptions { tls: true, arguments: &["--auth", "basic"], ..WindowsOptions::default() },
    )?;
    let ca = stack.certificates.ca.display().to_string();
    let options = ["--auth", "basic", "--scheme", "https", "--port", &windows.port, "--host-ca", &ca];
    stack.credential("basic", PASSWORD, &options)?;
    Ok(windows)
}
