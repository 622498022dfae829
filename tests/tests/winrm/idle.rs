//! Sessions that nobody uses for a while: HTTP.sys closes their connections at 120 s, and the next command succeeds all the same.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lictor_winrm::pool::{Pool, PoolSettings};
use tokio::time::Instant;
use winsim::{Handle, Order};

use crate::hosts::{self, WAYS};

const PATIENCE: Duration = Duration::from_secs(30);

/// Whose clock tells that time has passed.
#[derive(Clone, Copy, Debug)]
enum Clocks {
    /// The host's alone: the client finds out when it uses what it has.
    Host,
    /// Both, as when time passes.
    Both,
}

async fn pass(host: &Handle, clocks: Clocks, time: Duration) {
    match clocks {
        Clocks::Host => host.order(Order::Advance(time)).await,
        Clocks::Both => {
            tokio::time::pause();
            tokio::time::advance(time).await;
            tokio::time::resume();
            // The host's clock is this one too; now it looks at it.
            host.order(Order::Advance(Duration::ZERO)).await;
        }
    }
}

async fn after_idling(clocks: Clocks) -> Result<()> {
    for auth in WAYS {
        let host = hosts::start(auth).await?;
        let target = hosts::target(&host, auth)?;
        let pool = Pool::new(PoolSettings::default());
        hosts::run(&pool, &target, "echo 0", PATIENCE).await?;
        for (round, seconds) in [60_u64, 119, 120, 121, 300, 7300].into_iter().enumerate() {
            let context = || format!("{auth:?}, {seconds} s of {clocks:?}");
            hosts::signalled(&host).await.with_context(context)?;
            // Time must not jump while the pool is still ending the session before.
            hosts::eventually("one shell is open and nothing else is going on", || {
                let pooled = pool.statistics();
                host.statistics().shells.open == 1
                    && pooled.shells_created_total == pooled.shells_deleted_total + 1
                    && pooled.idle == 1
            })
            .await
            .with_context(context)?;
            pass(&host, clocks, Duration::from_secs(seconds)).await;
            let result =
                hosts::run(&pool, &target, &format!("echo {seconds}"), PATIENCE).await.with_context(context)?;
            ensure!(result == (0, format!("{seconds}\r\n").into_bytes()), "{}: {result:?}", context());
            ensure!(host.statistics().commands.started == round as u64 + 2, "{}", context());
        }
        ensure!(pool.close(Instant::now() + PATIENCE).await == 0, "shells are not known to be gone");
        let statistics = host.statistics();
        ensure!(statistics.commands.most_requests_per_id == 1 && statistics.shells.open == 0, "{statistics:?}");
        ensure!(statistics.violation_count == 0, "{:?}", statistics.violations);
        ensure!(statistics.authentication.failed_logons.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn the_next_command_succeeds_when_only_the_host_has_waited() -> Result<()> {
    after_idling(Clocks::Host).await
}

#[tokio::test]
async fn the_next_command_succeeds_when_both_have_waited() -> Result<()> {
    after_idling(Clocks::Both).await
}
