//! Many commands at a time: quotas of hosts fail nobody, a wrong password is tried once, and whatever is cancelled is gone.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lictor_winrm::pool::{Pool, PoolSettings, Stopped};
use lictor_winrm::shell::{Event, Invocation};
use lictor_winrm::target::{AuthKind, Credential, Secret, Target};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use uuid::Uuid;
use winsim::Handle;

use crate::hosts;

const PATIENCE: Duration = Duration::from_secs(300);

/// One of several kinds of commands, by its number: the line, its input, its exit code and its output.
fn command(number: usize) -> Result<(Invocation, i32, Vec<u8>)> {
    let (line, input, code, output) = match number % 5 {
        0 => ("echo hello".to_owned(), None, 0, b"hello\r\n".to_vec()),
        1 => (format!("exit /b {}", number % 250), None, i32::try_from(number % 250)?, Vec::new()),
        2 => ("sim.exe stdin".to_owned(), Some(format!("input {number}")), 0, format!("input {number}").into_bytes()),
        3 => (format!("sim.exe argv {number} \"a b\""), None, 0, format!("[\"{number}\",\"a b\"]\r\n").into_bytes()),
        _ => ("ver >nul".to_owned(), None, 0, Vec::new()),
    };
    Ok((Invocation::command(&line, &[], input.map(Into::into))?, code, output))
}

/// Runs that command and checks what came of it.
async fn run(pool: &Pool, target: &Target, number: usize) -> Result<()> {
    let (invocation, code, expected) = command(number)?;
    let mut lease = pool.lease(target, Instant::now() + PATIENCE).await?;
    let mut running = lease.start(&invocation, Uuid::new_v4()).await?;
    let mut output = Vec::new();
    loop {
        match running.next().await? {
            Event::Output { data, .. } => output.extend_from_slice(&data),
            Event::Done { exit_code, output_gap } => {
                ensure!(
                    exit_code == code && output == expected && !output_gap,
                    "{invocation:?}: {exit_code} {output:?}"
                );
                return Ok(());
            }
        }
    }
}

/// `callers` at a time take numbers from 0 to `commands` and run them on the host that `target` gives.
async fn crowd(pool: &Pool, callers: usize, commands: usize, targets: Arc<Vec<Target>>) -> Result<()> {
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (pool, next, targets) = (pool.clone(), Arc::clone(&next), Arc::clone(&targets));
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if number >= commands {
                    return Ok(());
                }
                let target = targets.get(number % targets.len()).context("no target")?;
                run(&pool, target, number).await.with_context(|| format!("command {number}"))?;
            }
        });
    }
    tasks.join_all().await.into_iter().collect()
}

fn left_clean(host: &Handle, commands: u64) -> Result<()> {
    let statistics = host.statistics();
    ensure!(statistics.commands.started == commands, "{} started", statistics.commands.started);
    ensure!(statistics.commands.most_requests_per_id == 1, "a Command was repeated");
    ensure!(statistics.shells.open == 0, "{} shells open", statistics.shells.open);
    ensure!(statistics.violation_count == 0, "{:?}", statistics.violations);
    Ok(())
}

/// The quotas of a host as it comes: 30 shells per user, and 1,500 commands per user that count until their shell is deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_commands_on_one_host_meet_no_quota() -> Result<()> {
    let host = hosts::start(AuthKind::Negotiate).await?;
    let target = hosts::target(&host, AuthKind::Negotiate)?;
    // More than the host gives: it has to be found out.
    let settings = PoolSettings { max_shells_per_user: 50, max_shells_per_host: 50, ..PoolSettings::default() };
    let pool = Pool::new(settings);
    crowd(&pool, 50, 10_000, Arc::new(vec![target])).await?;
    let left = pool.close(Instant::now() + Duration::from_secs(30)).await;
    ensure!(left == 0, "{left} shells are not known to be gone");
    let faults = host.statistics().faults;
    let shells = faults.get("2150859173").copied().unwrap_or_default();
    ensure!(shells > 0, "the host gave as many shells as were asked for");
    ensure!(!faults.contains_key("2150859174"), "the budget of operations did not hold: {faults:?}");
    left_clean(&host, 10_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_hosts_with_a_hundred_commands_each() -> Result<()> {
    let mut hosts = Vec::new();
    for _ in 0..100 {
        hosts.push(hosts::start(AuthKind::Negotiate).await?);
    }
    let targets = hosts.iter().map(|host| hosts::target(host, AuthKind::Negotiate)).collect::<Result<Vec<_>>>()?;
    let pool = Pool::new(PoolSettings::default());
    crowd(&pool, 100, 10_000, Arc::new(targets)).await?;
    let left = pool.close(Instant::now() + Duration::from_secs(30)).await;
    ensure!(left == 0, "{left} shells are not known to be gone");
    for host in &hosts {
        ensure!(host.statistics().faults.is_empty(), "{:?}", host.statistics().faults);
        left_clean(host, 100)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_under_two_hundred_callers_is_tried_once() -> Result<()> {
    for auth in hosts::WAYS {
        let host = hosts::start(auth).await?;
        let mut target = hosts::target(&host, auth)?;
        target.credential = Credential::password(target.credential.username(), Secret::new("wrong".to_owned()));
        let pool = Pool::new(PoolSettings::default());
        let mut tasks = JoinSet::new();
        for number in 0..200 {
            let (pool, target) = (pool.clone(), target.clone());
            tasks.spawn(async move { run(&pool, &target, number).await });
        }
        for result in tasks.join_all().await {
            let error = result.err().context("a wrong password was accepted")?;
            let error = error.downcast::<lictor_winrm::Error>()?;
            ensure!(error.credential_rejected() && !error.may_have_started(), "{error:?}");
        }
        let logons: u64 = host.statistics().authentication.failed_logons.values().sum();
        ensure!(logons == 1, "{logons} attempts by {auth:?}");
        pool.close(Instant::now() + Duration::from_secs(10)).await;
    }
    Ok(())
}

/// What became of a command that somebody stopped wanting.
#[derive(Debug, Default, Clone, Copy)]
struct Ends {
    done: usize,
    confirmed: usize,
    dropped: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_commands_cancelled_at_any_moment_leave_nothing() -> Result<()> {
    let host = Arc::new(hosts::start(AuthKind::Negotiate).await?);
    let target = hosts::target(&host, AuthKind::Negotiate)?;
    let pool = Pool::new(PoolSettings { max_shells_per_user: 25, ..PoolSettings::default() });
    let mut tasks = JoinSet::new();
    for number in 0..500_u64 {
        let (pool, target) = (pool.clone(), target.clone());
        tasks.spawn(async move {
            let line = ["sim.exe sleep 600000", "sim.exe lines 100000 5", "sim.exe stdin"][(number % 3) as usize];
            let invocation = Invocation::command(line, &[], None)?;
            let invocation = if number % 3 == 2 { invocation.with_streamed_input() } else { invocation };
            // A moment that is different for each, and the same in every run.
            let moment = Duration::from_micros(number * 7919 % 200_000);
            let mut lease = pool.lease(&target, Instant::now() + PATIENCE).await?;
            let mut ends = Ends::default();
            let Ok(started) = timeout(moment, lease.start(&invocation, Uuid::new_v4())).await else {
                ends.dropped += 1;
                return Ok(ends);
            };
            let mut running = started?;
            let follow = async {
                loop {
                    if let Event::Done { .. } = running.next().await? {
                        return anyhow::Ok(());
                    }
                }
            };
            match timeout(moment, follow).await {
                Ok(result) => {
                    result?;
                    ends.done += 1;
                }
                Err(_) if number % 4 == 0 => ends.dropped += 1,
                Err(_) => match running.stop(Duration::from_secs(5)).await {
                    // Whoever is stopped by ctrl_c ends with STATUS_CONTROL_C_EXIT.
                    Stopped::Confirmed { exit_code } => {
                        ensure!(exit_code == Some(-1_073_741_510), "{line}: {exit_code:?}");
                        ends.confirmed += 1;
                    }
                    Stopped::Unconfirmed(error) => return Err(error.into()),
                },
            }
            anyhow::Ok(ends)
        });
    }
    let mut all = Ends::default();
    while let Some(result) = tasks.join_next().await {
        let ends = result??;
        all.done += ends.done;
        all.confirmed += ends.confirmed;
        all.dropped += ends.dropped;
    }
    ensure!(all.done == 0 && all.confirmed > 100 && all.dropped > 50, "{all:?}");
    let left = pool.close(Instant::now() + Duration::from_secs(60)).await;
    ensure!(left == 0, "{left} shells are not known to be gone");
    let statistics = host.statistics();
    ensure!(statistics.commands.running == 0, "{} commands run", statistics.commands.running);
    ensure!(statistics.shells.open == 0, "{} shells open", statistics.shells.open);
    ensure!(statistics.violation_count == 0, "{:?}", statistics.violations);
    Ok(())
}
