//! Shells that an earlier process left behind, on a host that lists them a few at a time.

use std::time::Duration;

use anyhow::{Result, ensure};
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
