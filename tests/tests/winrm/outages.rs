//! Hosts that restart, are not there for a while, or forget who a connection belongs to while a command runs on it.
//!
//! Between commands nobody notices; in the middle of one its outcome is unknown, and it is never started again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lictor_winrm::error::{Error, Stage};
use lictor_winrm::pool::{Pool, PoolSettings};
use lictor_winrm::shell::Invocation;
use lictor_winrm::target::AuthKind;
use tokio::time::Instant;
use uuid::Uuid;
use winsim::{Cut, Expiry, Handle, Lasting, Order, Reboot, RestartService};

use crate::hosts::{self, WAYS};

const PATIENCE: Duration = Duration::from_secs(30);

/// Nothing was run twice, nothing is left, and nobody tried a password in vain.
async fn ends_clean(pool: &Pool, host: &Handle, started: u64) -> Result<()> {
    ensure!(pool.close(Instant::now() + PATIENCE).await == 0, "shells are not known to be gone");
    let statistics = host.statistics();
    ensure!(statistics.commands.started == started, "{} starts", statistics.commands.started);
    ensure!(statistics.commands.most_requests_per_id == 1 && statistics.shells.open == 0, "{statistics:?}");
    ensure!(statistics.violation_count == 0, "{:?}", statistics.violations);
    ensure!(statistics.authentication.failed_logons.is_empty(), "{:?}", statistics.authentication);
    Ok(())
}

fn restarts() -> Vec<Order> {
    [Cut::Close, Cut::Reset]
        .into_iter()
        .flat_map(|cut| {
            [
                Order::Reboot(Reboot { cut, ..Reboot::default() }),
                Order::RestartService(RestartService { cut, ..RestartService::default() }),
            ]
        })
        .collect()
}

#[tokio::test]
async fn a_restart_between_commands_is_not_noticed() -> Result<()> {
    // Whether the next request after the restart is the Command or the Signal of the command before it.
    for (auth, signalled) in WAYS.into_iter().flat_map(|auth| [(auth, true), (auth, false)]) {
        let host = hosts::start(auth).await?;
        let target = hosts::target(&host, auth)?;
        let pool = Pool::new(PoolSettings::default());
        hosts::run(&pool, &target, "ver", PATIENCE).await?;
        let restarts = restarts();
        for restart in &restarts {
            if signalled {
                hosts::signalled(&host).await?;
            }
            host.order(restart.clone()).await;
            let result = hosts::run(&pool, &target, "echo back", PATIENCE).await;
            let result = result.with_context(|| format!("{auth:?}, signalled: {signalled}, after {restart:?}"))?;
            ensure!(result == (0, b"back\r\n".to_vec()), "{result:?}");
        }
        ends_clean(&pool, &host, restarts.len() as u64 + 1).await?;
    }
    Ok(())
}

/// Starts a command that does not end, lets `happen` happen to the host while it runs, and returns what becomes of it.
async fn in_the_middle(pool: &Pool, host: &Handle, auth: AuthKind, happen: Order) -> Result<Error> {
    let target = hosts::target(host, auth)?;
    let invocation = Invocation::command("sim.exe sleep 1000000", &[], None)?;
    let mut lease = pool.lease(&target, Instant::now() + PATIENCE).await?;
    let mut running = lease.start(&invocation, Uuid::new_v4()).await?;
    let (event, ()) = tokio::join!(tokio::time::timeout(PATIENCE, running.next()), async {
        // One turn of the other side, so that its Receive is under way.
        tokio::task::yield_now().await;
        host.order(happen).await;
    });
    event?.err().context("an event after the end of the host")
}

#[tokio::test]
async fn a_restart_in_the_middle_of_a_command_makes_its_outcome_unknown() -> Result<()> {
    for auth in WAYS {
        for restart in restarts() {
            let context = format!("{auth:?}, {restart:?}");
            let host = hosts::start(auth).await?;
            let pool = Pool::new(PoolSettings::default());
            let error = in_the_middle(&pool, &host, auth, restart).await.context(context.clone())?;
            ensure!(error.may_have_started(), "{context}: {error:?}");
            let result = hosts::run(&pool, &hosts::target(&host, auth)?, "echo next", PATIENCE).await;
            ensure!(result.context(context)?.0 == 0);
            ends_clean(&pool, &host, 2).await?;
        }
    }
    Ok(())
}

/// The authentication is the connection's; the command lives on and is received on a new one.
async fn lost_authentication_in_the_middle(expiry: Expiry) -> Result<()> {
    let host = hosts::start(AuthKind::Negotiate).await?;
    let pool = Pool::new(PoolSettings::default());
    let target = hosts::target(&host, AuthKind::Negotiate)?;
    let mut done = Box::pin(hosts::run(&pool, &target, "echo 1& sim.exe sleep 1000000& echo 2", PATIENCE));
    let mut expired = false;
    let done = loop {
        tokio::select! {
            biased;
            done = &mut done => break done?,
            () = tokio::task::yield_now() => {}
        }
        if expired {
            // The Receive that waits ends with its timeout, the next one meets the loss, and the command comes to its end.
            host.order(Order::Advance(Duration::from_secs(20))).await;
        } else if host.statistics().operations.contains_key("Receive") {
            host.order(Order::ExpireAuthentication(expiry)).await;
            expired = true;
        }
    };
    ensure!(done == (0, b"1\r\n2\r\n".to_vec()), "{done:?}");
    ensure!(host.statistics().authentication.handshakes >= 2, "the authentication was not lost");
    ends_clean(&pool, &host, 1).await
}

#[tokio::test]
async fn a_lost_authentication_in_the_middle_of_a_command_is_not_noticed() -> Result<()> {
    lost_authentication_in_the_middle(Expiry::Unauthorized).await
}

#[tokio::test]
async fn a_disowned_connection_in_the_middle_of_a_command_is_not_noticed() -> Result<()> {
    lost_authentication_in_the_middle(Expiry::BadRequest).await
}

/// What is not sealed may come from anybody: a refusal of Command proves nothing, and the host, when asked, does not know the
/// command. See docs/decisions/0004.
#[tokio::test]
async fn a_lost_authentication_between_commands_makes_the_next_one_unknown() -> Result<()> {
    for expiry in [Expiry::Unauthorized, Expiry::BadRequest] {
        let host = hosts::start(AuthKind::Negotiate).await?;
        let target = hosts::target(&host, AuthKind::Negotiate)?;
        let pool = Pool::new(PoolSettings::default());
        hosts::run(&pool, &target, "ver", PATIENCE).await?;
        // The next request is then the Command itself.
        hosts::signalled(&host).await?;
        host.order(Order::ExpireAuthentication(expiry)).await;
        let error = hosts::run(&pool, &target, "echo lost", PATIENCE).await.err().context("it was believed")?;
        let error = error.downcast_ref::<Error>().context("another error")?;
        ensure!(error.may_have_started() && error.stage() == Stage::Run, "{error:?}");
        ensure!(error.report().to_string().contains("2150858843"), "{}", error.report());
        let result = hosts::run(&pool, &target, "echo back", PATIENCE).await?;
        ensure!(result == (0, b"back\r\n".to_vec()), "{result:?}");
        ends_clean(&pool, &host, 2).await?;
    }
    Ok(())
}

/// While nobody answers, a command fails at a stage before it is sent, or succeeds once the host is back.
#[tokio::test]
async fn a_host_that_is_not_there_yet_is_waited_for_or_named() -> Result<()> {
    let gone = [
        Order::Reboot(Reboot { refuse: Lasting::UntilReady, ..Reboot::default() }),
        Order::Reboot(Reboot { cut: Cut::Reset, unavailable: Lasting::UntilReady, ..Reboot::default() }),
        Order::RestartService(RestartService { unavailable: Lasting::UntilReady, ..RestartService::default() }),
        Order::Unavailable(1),
    ];
    for auth in WAYS {
        for warm in [false, true] {
            for outage in &gone {
                let context = format!("{auth:?}, warm: {warm}, {outage:?}");
                let host = hosts::start(auth).await?;
                let target = hosts::target(&host, auth)?;
                let pool = Pool::new(PoolSettings::default());
                if warm {
                    hosts::run(&pool, &target, "ver", PATIENCE).await?;
                }
                host.order(outage.clone()).await;
                let first = hosts::run(&pool, &target, "echo first", Duration::from_secs(1)).await;
                let mut started = u64::from(warm) + 1;
                match &first {
                    Ok(_) => started += 1,
                    Err(error) => {
                        let error = error.downcast_ref::<Error>().context(context.clone())?;
                        ensure!(!error.may_have_started(), "{context}: {error:?}");
                        let stage = error.stage();
                        let expected =
                            matches!(stage, Stage::Connect | Stage::Authenticate | Stage::OpenShell | Stage::Run);
                        ensure!(expected, "{context}: at {stage:?}, {error:?}");
                    }
                }
                host.order(Order::Ready).await;
                let result = hosts::run(&pool, &target, "echo back", PATIENCE).await.context(context.clone())?;
                ensure!(result == (0, b"back\r\n".to_vec()), "{context}: {result:?}");
                ends_clean(&pool, &host, started).await.context(context)?;
            }
        }
    }
    Ok(())
}

/// A caller who has time gets its command run when the service comes back meanwhile.
async fn comes_back_in_time(warm: bool) -> Result<()> {
    // Basic has no exchange of its own to meet the 503: with a shell at hand that would be Command, and a 503 that a proxy gives
    // does not prove that the host has not seen it.
    let ways = WAYS.into_iter().filter(|auth| !warm || *auth != AuthKind::Basic);
    for (auth, cut) in ways.flat_map(|auth| [(auth, Cut::Close), (auth, Cut::Reset)]) {
        let context = format!("{auth:?}, {cut:?}");
        let host = hosts::start(auth).await?;
        let target = hosts::target(&host, auth)?;
        let pool = Pool::new(PoolSettings::default());
        if warm {
            hosts::run(&pool, &target, "ver", PATIENCE).await?;
            hosts::signalled(&host).await?;
        }
        host.order(Order::Reboot(Reboot { cut, unavailable: Lasting::UntilReady, ..Reboot::default() })).await;
        let (result, met) = tokio::join!(hosts::run(&pool, &target, "echo back", PATIENCE), async {
            let met = || host.statistics().exchanges.iter().any(|exchange| exchange.status == 503);
            hosts::eventually("the pool meets a 503", met).await?;
            host.order(Order::Ready).await;
            anyhow::Ok(())
        });
        met.context(context.clone())?;
        let result = result.with_context(|| context.clone())?;
        ensure!(result == (0, b"back\r\n".to_vec()), "{context}: {result:?}");
        ends_clean(&pool, &host, u64::from(warm) + 1).await.context(context)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_service_that_comes_back_in_time_is_waited_for() -> Result<()> {
    comes_back_in_time(false).await
}

#[tokio::test]
async fn a_service_that_comes_back_in_time_is_waited_for_with_a_session() -> Result<()> {
    comes_back_in_time(true).await
}
