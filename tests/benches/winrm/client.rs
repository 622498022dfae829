//! A client as a process of its own, told over a pipe to run commands for a while.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use lictor_winrm::target::Target;
use serde_json::{Value, json};

use super::Cpus;
use super::figures::cpu_time;
use super::ours::Ours;
use super::raw::Raw;

/// What a client did in one round.
pub(crate) struct Round {
    pub(crate) commands: u64,
    pub(crate) exchanges: u64,
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
}

/// A client process, seen from the one that conducts.
pub(crate) struct Client {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    pub(crate) fn start(kind: &str, auth: &str, port: u16, cpus: &Cpus) -> Result<Self> {
        let mut child = cpus
            .client(&std::env::current_exe()?)
            .args(["client", kind, auth, &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().context("stdin is piped")?;
        let output = BufReader::new(child.stdout.take().context("stdout is piped")?);
        Ok(Self { child, input, output })
    }

    /// Lets it run commands for `time`.
    pub(crate) fn round(&mut self, time: Duration) -> Result<Round> {
        writeln!(self.input, "{}", time.as_nanos())?;
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("the client ended with {}", self.child.wait()?);
        }
        let figures: Value = serde_json::from_str(&line)?;
        let figure = |name: &str| figures[name].as_u64().with_context(|| format!("no {name} in {figures}"));
        Ok(Round {
            commands: figure("commands")?,
            exchanges: figure("exchanges")?,
            wall: Duration::from_nanos(figure("wall")?),
            cpu: Duration::from_nanos(figure("cpu")?),
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The client process itself. One thread for both kinds: what is compared is work, not how it is spread.
pub(crate) fn serve(kind: &str, target: &Target) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match kind {
        "ours" => {
            let mut client = runtime.block_on(Ours::connect(target))?;
            rounds(|| runtime.block_on(client.command()))
        }
        "raw" => {
            let mut client = runtime.block_on(Raw::connect(target))?;
            rounds(|| runtime.block_on(client.command()))
        }
        _ => bail!("unknown client {kind}"),
    }
}

/// Each line of standard input is a round. `command` runs one command and says how many exchanges it took.
fn rounds(mut command: impl FnMut() -> Result<u32>) -> Result<()> {
    let pid = std::process::id();
    for line in std::io::stdin().lines() {
        let time = Duration::from_nanos(line?.parse()?);
        let (cpu, begin) = (cpu_time(pid)?, Instant::now());
        let (mut commands, mut exchanges) = (0_u64, 0_u64);
        while begin.elapsed() < time {
            exchanges += u64::from(command()?);
            commands += 1;
        }
        let (wall, cpu) = (begin.elapsed(), cpu_time(pid)?.saturating_sub(cpu));
        let figures = json!({
            "commands": commands,
            "exchanges": exchanges,
            "wall": u64::try_from(wall.as_nanos())?,
            "cpu": u64::try_from(cpu.as_nanos())?,
        });
        println!("{figures}");
    }
    Ok(())
}
