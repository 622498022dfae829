//! Connections that break at every byte of every exchange, in both directions, sealed and plain.
//!
//! Whatever breaks, the host is asked to start the command at most once, the outcome is told as the retry law says, and
//! nothing stays behind.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lictor_winrm::error::Error;
use lictor_winrm::pool::{Pool, PoolSettings};
use lictor_winrm::shell::{Event, Invocation};
use lictor_winrm::target::{AuthKind, Target};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;
use winsim::Handle;

use crate::cut::{Cut, Direction, Ends, Relay};
use crate::hosts;

const INPUT: &str = "line a\r\nother\r\nline b\r\n";
const OUTPUT: &str = "line a\r\nline b\r\n";

/// What one run came to.
#[derive(Debug)]
enum Outcome {
    /// The exit code, the output, and whether output may be missing.
    Done {
        exit_code: i32,
        output: Vec<u8>,
        gap: bool,
    },
    NoSession(Error),
    NotStarted(Error),
    MayHaveStarted(Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Authenticate,
    Create,
    Command,
    Send,
    Receive,
    Signal,
    Delete,
}

async fn run(relay: &Relay, auth: AuthKind) -> Result<Outcome> {
    let target = hosts::target_on(relay.address.port(), auth)?;
    let invocation = Invocation::command("findstr line", &[], Some(INPUT.into()))?;
    let pool = Pool::new(PoolSettings::default());
    let outcome = follow(&pool, &target, &invocation).await;
    let left = pool.close(Instant::now() + Duration::from_secs(30)).await;
    ensure!(left == 0, "{left} shells are not known to be gone");
    Ok(outcome)
}

async fn follow(pool: &Pool, target: &Target, invocation: &Invocation) -> Outcome {
    let mut lease = match pool.lease(target, Instant::now() + Duration::from_secs(30)).await {
        Ok(lease) => lease,
        Err(error) => return Outcome::NoSession(error),
    };
    let failed = |error: Error| {
        if error.may_have_started() { Outcome::MayHaveStarted(error) } else { Outcome::NotStarted(error) }
    };
    let mut running = match lease.start(invocation, Uuid::new_v4()).await {
        Ok(running) => running,
        Err(error) => return failed(error),
    };
    let mut output = Vec::new();
    loop {
        match running.next().await {
            Ok(Event::Output { data, .. }) => output.extend_from_slice(&data),
            Ok(Event::Done { exit_code, output_gap }) => {
                return Outcome::Done { exit_code, output, gap: output_gap };
            }
            Err(error) => return failed(error),
        }
    }
}

/// The exchanges of a run that nothing disturbs.
async fn undisturbed(windows: &Handle, auth: AuthKind) -> Result<Vec<(Step, Ends)>> {
    let relay = Relay::start(windows.address(), None).await?;
    let outcome = run(&relay, auth).await?;
    ensure!(
        matches!(&outcome, Outcome::Done { exit_code: 0, output, gap: false } if output == OUTPUT.as_bytes()),
        "{outcome:?}"
    );
    let steps: Vec<Step> = windows
        .statistics()
        .exchanges
        .iter()
        .map(|exchange| match exchange.operation.as_str() {
            "Authenticate" => Ok(Step::Authenticate),
            "Create" => Ok(Step::Create),
            "Command" => Ok(Step::Command),
            "Send" => Ok(Step::Send),
            "Receive" => Ok(Step::Receive),
            "Signal" => Ok(Step::Signal),
            "Delete" => Ok(Step::Delete),
            other => Err(anyhow::anyhow!("unexpected {other}")),
        })
        .collect::<Result<_>>()?;
    let exchanges = relay.exchanges();
    ensure!(steps.len() == exchanges.len(), "{steps:?} {exchanges:?}");
    Ok(steps.into_iter().zip(exchanges).collect())
}

/// Which exchange a cut falls into.
fn hit(exchanges: &[(Step, Ends)], cut: Cut) -> Option<Step> {
    let end = |ends: &Ends| match cut.direction {
        Direction::Request => ends.request,
        Direction::Answer => ends.answer,
    };
    exchanges.iter().find(|(_, ends)| cut.after <= end(ends)).map(|(step, _)| *step)
}

/// The same cut one byte later.
fn after_one_more(cut: Cut) -> Cut {
    Cut { after: cut.after + 1, ..cut }
}

async fn check(windows: &Handle, auth: AuthKind, exchanges: &[(Step, Ends)], cut: Cut) -> Result<()> {
    let step = hit(exchanges, cut).context("a cut behind the end")?;
    let next = hit(exchanges, after_one_more(cut));
    windows.reset();
    let relay = Relay::start(windows.address(), Some(cut)).await?;
    let outcome = run(&relay, auth).await?;
    let statistics = windows.statistics();
    ensure!(statistics.commands.started <= 1, "{} starts", statistics.commands.started);
    ensure!(statistics.commands.most_requests_per_id <= 1, "Command was repeated");
    ensure!(statistics.violation_count == 0, "{:?}", statistics.violations);
    let started = statistics.commands.started == 1;
    match &outcome {
        Outcome::Done { exit_code, output, gap } => {
            ensure!(started && *exit_code == 0);
            ensure!(*gap || output == OUTPUT.as_bytes(), "output is missing unnoticed: {output:?}");
            // Nobody can know that a lost answer held nothing, nor, just behind the answer before, whether the request had arrived.
            let next_is_lost = cut.direction == Direction::Answer && next == Some(Step::Receive);
            ensure!(step == Step::Receive || next_is_lost || !gap, "a gap although every answer to Receive arrived");
        }
        Outcome::NoSession(error) => {
            ensure!(matches!(step, Step::Authenticate | Step::Create), "{error:?}");
            ensure!(!started);
        }
        Outcome::NotStarted(error) => {
            ensure!(!started, "{error:?}");
        }
        Outcome::MayHaveStarted(error) => {
            // Once the host has told that it took the command, only lost input makes the end unknown.
            // A command whose answer got lost is found again; one whose request got lost never was there.
            let expected = match (step, cut.direction) {
                (Step::Command, Direction::Request) => !started || next != Some(step),
                // Just behind an answer: the next request may be on its way already, and is lost with the connection.
                (step, Direction::Answer) if next == Some(Step::Command) && step != Step::Command => !started,
                (Step::Command, Direction::Answer) if next == Some(Step::Send) => true,
                (Step::Command, Direction::Answer) => false,
                (step, _) => step == Step::Send,
            };
            ensure!(expected, "{error:?}");
        }
    }
    ensure!(statistics.shells.open == 0, "{} shells are open", statistics.shells.open);
    Ok(())
}

/// Every offset takes some milliseconds, so both kinds of messages take minutes together. Most of it is waiting: hosts of
/// their own break side by side.
async fn every_byte(auth: AuthKind) -> Result<()> {
    let mut parts = JoinSet::new();
    for part in 0..PARTS {
        parts.spawn(async move {
            let windows = hosts::start(auth).await?;
            let exchanges = undisturbed(&windows, auth).await?;
            let total = exchanges.last().context("no exchange")?.1;
            let requests = (0..=total.request).map(|after| Cut { direction: Direction::Request, after });
            let answers = (0..total.answer).map(|after| Cut { direction: Direction::Answer, after });
            for cut in requests.chain(answers).skip(part).step_by(PARTS) {
                let context = || format!("{cut:?} in {:?}", hit(&exchanges, cut));
                check(&windows, auth, &exchanges, cut).await.with_context(context)?;
            }
            anyhow::Ok(())
        });
    }
    parts.join_all().await.into_iter().collect()
}

const PARTS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_connections_break_at_every_byte() -> Result<()> {
    every_byte(AuthKind::Basic).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealed_connections_break_at_every_byte() -> Result<()> {
    every_byte(AuthKind::Negotiate).await
}
