//! Shells that an earlier process left behind, on a host that lists them a few at a time.

use std::time::Duration;

use anyhow::{Result, ensure};
use lictor_winrm::error::Stage;
use lictor_winrm::pool::{Pool, PoolSettings};
use tokio::time::Instant;
use winsim::{Order, QuotaChange};

use crate::hosts::{self, WAYS};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn orphans_are_found_when_the_list_comes_in_pieces() -> Result<()> {
    for auth in WAYS {
        let host = hosts::start(auth).await?;
        let target = hosts::target(&host, auth)?;
        let settings = |owner: &str| PoolSettings { owner: Some(owner.to_owned()), ..PoolSettings::default() };
        // Pools that stand still from here on, as those of killed processes.
        let killed = [Pool::new(settings("agent-1")), Pool::new(settings("agent-2"))];
        let mut leases = Vec::new();
        for pool in [&killed[0], &killed[0], &killed[0], &killed[1], &killed[0]] {
            leases.push(pool.lease(&target, Instant::now() + PATIENCE).await?);
        }
        ensure!(host.shells().len() == 5, "{:?}", host.shells());
        host.order(Order::Quotas(QuotaChange { max_batch_items: Some(2), ..QuotaChange::default() })).await;
        let pool = Pool::new(settings("agent-1"));
        hosts::run(&pool, &target, "ver", PATIENCE).await?;
        hosts::eventually("the orphans of agent-1 are deleted", || host.shells().len() == 2).await?;
        ensure!(host.statistics().operations.get("Pull").is_some_and(|pulls| *pulls >= 2), "{:?}", host.statistics());
        ensure!(pool.close(Instant::now() + PATIENCE).await == 0);
        ensure!(host.shells().len() == 1, "the shell of agent-2 is not ours: {:?}", host.shells());
        ensure!(host.statistics().violation_count == 0, "{:?}", host.statistics().violations);
    }
    Ok(())
}

#[tokio::test]
async fn the_shell_of_a_connection_test_is_an_orphan_like_any_other() -> Result<()> {
    let host = hosts::start(WAYS[0]).await?;
    let target = hosts::target(&host, WAYS[0])?;
    let settings = || PoolSettings { owner: Some("agent-1".to_owned()), ..PoolSettings::default() };
    // A test that stands still once its shell is open, as that of a killed process.
    let (opened, is_open) = tokio::sync::oneshot::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (over, is_over) = tokio::sync::oneshot::channel::<()>();
    let killed = std::thread::spawn({
        let target = target.clone();
        move || -> Result<()> {
            let mut opened = Some(opened);
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
                let pool = Pool::new(settings());
                let probe = pool.probe(&target, Instant::now() + PATIENCE, |rung| {
                    if rung.stage == Stage::OpenShell
                        && let Some(opened) = opened.take()
                    {
                        // Whoever waits for either has gone: then the test is over.
                        let _ = (opened.send(()), released.recv());
                    }
                });
                tokio::select! {
                    biased;
                    _ = is_over => {}
                    _ = probe => {}
                }
            });
            Ok(())
        }
    });
    is_open.await?;
    ensure!(host.shells().len() == 1, "{:?}", host.shells());
    let pool = Pool::new(settings());
    hosts::run(&pool, &target, "ver", PATIENCE).await?;
    hosts::eventually("the shell of the test is deleted", || host.statistics().shells.deleted == 1).await?;
    ensure!(host.shells().len() == 1, "the pool's own: {:?}", host.shells());
    drop((over, release));
    ensure!(killed.join().is_ok_and(|ended| ended.is_ok()));
    Ok(())
}
