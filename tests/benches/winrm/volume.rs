//! Peak memory while a large output streams through.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use lictor_tests::binary;
use serde_json::Value;

use super::figures::peak_memory;
use super::{Cpus, USER};

const MIB: u64 = 1024 * 1024;

/// The library alone: a process that takes the output of `lictor-winrm` and drops it.
pub(crate) fn library(auth: &str, port: u16, mib: u64, cpus: &Cpus) -> Result<()> {
    let child = cpus
        .client(&std::env::current_exe()?)
        .args(["stream", auth, &port.to_string(), &(mib * MIB).to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut child = Ended(child);
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().context("stdout is piped")?).read_line(&mut line)?;
    let figures: Value = serde_json::from_str(&line).context("the client failed")?;
    // It waits for the end of its standard input, so that this is the peak of all of it.
    report("library", auth, mib, peak_memory(child.0.id())?, figures["seconds"].as_f64().context("no seconds")?);
    Ok(())
}

/// `lictor winrm run`, with a reader at the other end of its standard output.
pub(crate) fn program(auth: &str, port: u16, mib: u64, password: &Path, cpus: &Cpus) -> Result<()> {
    let begin = Instant::now();
    let mut command = cpus.client(&binary("lictor")?);
    command.args(["winrm", "run", "--host", "127.0.0.1", "--scheme", "http", "--auth", auth, "--user", USER]);
    command.args(["--port", &port.to_string()]).arg("--password-file").arg(password);
    if auth == "basic" {
        command.arg("--allow-basic-over-http");
    }
    command.args(["--", "sim.exe", "bytes", &(mib * MIB).to_string()]);
    // It warns of Basic over plain HTTP.
    let log = password.with_file_name("lictor.log");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?);
    let mut child = Ended(command.spawn()?);
    let mut output = child.0.stdout.take().context("stdout is piped")?;
    let mut buffer = vec![0; 256 * 1024];
    let (mut received, mut peak) = (0, 0);
    loop {
        let length = output.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        received += length as u64;
        // The figure only grows; once the process has ended, it is gone.
        if let Ok(now) = peak_memory(child.0.id()) {
            peak = peak.max(now);
        }
    }
    let status = child.0.wait()?;
    ensure!(status.success(), "lictor winrm run ended with {status}: {}", std::fs::read_to_string(&log)?);
    ensure!(received == mib * MIB, "received {received} bytes");
    report("lictor winrm run", auth, mib, peak, begin.elapsed().as_secs_f64());
    Ok(())
}

fn report(what: &str, auth: &str, mib: u64, peak: u64, seconds: f64) {
    println!(
        "  {what:<18} {auth:<10} peak memory {:>6.1} MiB   {:>7.1} MiB per second",
        peak as f64 / MIB as f64,
        mib as f64 / seconds
    );
}

/// A child that does not outlive us.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
