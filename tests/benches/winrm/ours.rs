//! `lictor-winrm` as its callers use it: a lease of a pool, commands one after the other.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use lictor_winrm::Target;
use lictor_winrm::pool::{Lease, Pool, PoolSettings};
use lictor_winrm::shell::{Event, Invocation};
use serde_json::json;
use tokio::time::Instant as Deadline;
use uuid::Uuid;

use super::COMMAND;

/// One session.
pub(crate) struct Ours {
    lease: Lease,
    /// Ends with the process; shells stay on the host, which ends as well.
    _pool: Pool,
    exchanges: u32,
}

impl Ours {
    pub(crate) async fn connect(target: &Target) -> Result<Self> {
        // Bounds that would replace the shell are out of the way, as is the quota of the host.
        let bounds =
            PoolSettings { commands_per_shell: u32::MAX, commands_per_user: u32::MAX, ..PoolSettings::default() };
        let pool = Pool::new(bounds);
        let lease = pool.lease(target, Deadline::now() + Duration::from_secs(30)).await?;
        Ok(Self { lease, _pool: pool, exchanges: 0 })
    }

    /// The Signal of the command before, Command, and Receive until its end.
    pub(crate) async fn command(&mut self) -> Result<u32> {
        let invocation = Invocation::command(COMMAND, &[], None)?;
        let mut running = self.lease.start(&invocation, Uuid::new_v4()).await?;
        let mut output = 0;
        loop {
            match running.next().await? {
                Event::Output { data, .. } => output += data.len(),
                Event::Done { exit_code: 0, .. } => break,
                Event::Done { exit_code, .. } => bail!("exit code {exit_code}"),
            }
        }
        ensure!(output > 0, "no output");
        let exchanges = running.exchanges().total;
        Ok(exchanges - std::mem::replace(&mut self.exchanges, exchanges))
    }
}

/// Takes `bytes` of output as they come and says how long that took. Runs until its standard input ends, so that its
/// memory can be looked at.
pub(crate) fn stream(target: &Target, bytes: u64) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let pool = Pool::new(PoolSettings::default());
        let mut lease = pool.lease(target, Deadline::now() + Duration::from_secs(30)).await?;
        let begin = Instant::now();
        let invocation = Invocation::command(&format!("sim.exe bytes {bytes}"), &[], None)?;
        let mut running = lease.start(&invocation, Uuid::new_v4()).await?;
        let mut received = 0;
        while let Event::Output { data, .. } = running.next().await? {
            received += data.len() as u64;
        }
        ensure!(received == bytes, "received {received} bytes instead of {bytes}");
        println!("{}", json!({ "bytes": received, "seconds": begin.elapsed().as_secs_f64() }));
        anyhow::Ok(())
    })?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}
