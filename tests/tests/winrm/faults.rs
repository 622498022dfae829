//! Every fault of the table in place of every answer, in every form: what is told about the command is true, it runs at most once,
//! and no shell stays behind unnoticed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lictor_winrm::error::Error;
use lictor_winrm::pool::{Pool, PoolSettings};
use lictor_winrm::shell::{Event, Invocation};
use lictor_winrm::target::AuthKind;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;
use winsim::{Form, Handle, Order, OrderedFault, Style};

use crate::hosts;

const OPERATIONS: [&str; 6] = ["Create", "Command", "Send", "Receive", "Signal", "Delete"];
const OUTPUT: &str = "line a\r\n";
/// How long a command is followed that ends at once when it has its input. A host that tells to come back later needs less.
const PATIENCE: Duration = Duration::from_secs(8);
const AT_A_TIME: usize = 24;

/// What a host says that has certainly not begun what it was asked for.
const NOT_BEGUN: &[u32] = &[
    2_150_859_173,
    2_150_859_174,
    2_150_859_175,
    2_150_859_176,
    2_150_859_179,
    2_150_859_180,
    2_150_859_236,
    2_150_859_237,
    2_150_859_238,
    2_150_859_239,
    2_150_859_240,
    2_150_859_241,
    2_150_859_242,
    2_150_858_815,
    2_150_858_843,
    2_150_858_752,
    2_150_858_771,
    2_150_859_177,
    5,
];

/// What a host may say of something that it has begun, and what nobody knows the meaning of.
const AMBIGUOUS: &[u32] =
    &[2_150_858_793, 2_150_859_001, 2_150_859_212, 2_150_859_230, 995, 1460, 12_345, 2_150_899_999];

/// What a host says of a shell that is gone. Who is told so of a Delete believes it.
const GONE: &[u32] = &[2_150_858_843, 2_150_858_813, 2_150_859_082, 2_150_859_087, 2_150_859_212, 995];

/// The rest of the table.
const OTHERS: &[u32] = &[
    2_150_858_813,
    2_150_859_082,
    2_150_859_087,
    2_150_858_790,
    2_150_858_823,
    2_150_858_824,
    2_150_858_805,
    2_150_858_806,
    2_150_859_161,
    2_150_859_027,
    2_150_858_772,
    170,
    1018,
    2_147_943_418,
    1326,
    1331,
    1907,
    1909,
];

#[derive(Clone, Copy, Debug)]
struct Case {
    operation: &'static str,
    code: u32,
    /// The host does what it was asked for all the same.
    done: bool,
    style: Style,
}

#[derive(Debug)]
enum Outcome {
    Done(Vec<u8>, bool),
    Failed(Error),
}

async fn run(pool: &Pool, host: &Handle) -> Result<Outcome> {
    tokio::time::timeout(PATIENCE, follow(pool, host)).await.context("it does not end by itself")?
}

async fn follow(pool: &Pool, host: &Handle) -> Result<Outcome> {
    let target = hosts::target(host, AuthKind::Basic)?;
    let invocation = Invocation::command("findstr line", &[], Some("line a\r\nother\r\n".into()))?;
    let mut lease = match pool.lease(&target, Instant::now() + PATIENCE).await {
        Ok(lease) => lease,
        Err(error) => return Ok(Outcome::Failed(error)),
    };
    let mut running = match lease.start(&invocation, Uuid::new_v4()).await {
        Ok(running) => running,
        Err(error) => return Ok(Outcome::Failed(error)),
    };
    let mut output = Vec::new();
    loop {
        match running.next().await {
            Ok(Event::Output { data, .. }) => output.extend_from_slice(&data),
            Ok(Event::Done { output_gap, .. }) => return Ok(Outcome::Done(output, output_gap)),
            Err(error) => return Ok(Outcome::Failed(error)),
        }
    }
}

async fn check(case: Case) -> Result<()> {
    let host = hosts::start(AuthKind::Basic).await?;
    let Case { operation, code, done, style } = case;
    let fault = OrderedFault { operation: operation.to_owned(), code, times: 1, done, style: Some(style) };
    host.order(Order::Fault(fault)).await;
    let pool = Pool::new(PoolSettings::default());
    let outcome = run(&pool, &host).await?;
    let left = pool.close(Instant::now() + Duration::from_secs(60)).await;
    let statistics = host.statistics();
    let started = statistics.commands.started;
    ensure!(started <= 1 && statistics.commands.most_requests_per_id <= 2, "{outcome:?}, {started} starts");
    match &outcome {
        Outcome::Done(output, gap) => {
            ensure!(started == 1 && (*gap || output == OUTPUT.as_bytes()), "{outcome:?}, {started} starts");
        }
        Outcome::Failed(error) => {
            let may_have_started = error.may_have_started();
            ensure!(may_have_started || started == 0, "a command that ran is told not to have: {error:?}");
            let not_begun = NOT_BEGUN.contains(&code) && matches!(operation, "Create" | "Command");
            ensure!(!(not_begun && may_have_started), "what was surely not begun is told as unknown: {error:?}");
        }
    }
    let told_gone = operation == "Delete" && GONE.contains(&code);
    ensure!(
        told_gone || statistics.shells.open <= left as u64,
        "{} shells are open, {left} are told of",
        statistics.shells.open
    );
    ensure!(statistics.faults.get(&code.to_string()).is_some_and(|count| *count >= 1), "the fault was not given");
    ensure!(statistics.violation_count == 0, "{:?}", statistics.violations);
    Ok(())
}

/// Runs all cases, some at a time, and tells of every one that fails.
async fn check_all(cases: Vec<Case>) -> Result<()> {
    let (mut running, mut failed) = (JoinSet::new(), Vec::new());
    let mut cases = cases.into_iter();
    loop {
        while running.len() < AT_A_TIME
            && let Some(case) = cases.next()
        {
            running.spawn(async move { (case, check(case).await) });
        }
        let Some(finished) = running.join_next().await else { break };
        if let (case, Err(error)) = finished? {
            failed.push(format!("{case:?}: {error:#}"));
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

#[tokio::test]
async fn every_fault_in_place_of_every_answer() -> Result<()> {
    let codes = [NOT_BEGUN, AMBIGUOUS, OTHERS].concat();
    let style = Style::default();
    let cases = codes.iter().flat_map(|code| {
        OPERATIONS.into_iter().map(move |operation| Case { operation, code: *code, done: false, style })
    });
    // A Send that timed out was taken: a host that says so and has not taken it lies, and the command waits for its input.
    let honest = |case: &Case| case.operation != "Send" || case.code != 2_150_858_793;
    check_all(cases.filter(honest).collect()).await
}

/// The answer says that something went wrong, although it was done: nothing is done again for that.
#[tokio::test]
async fn ambiguous_faults_of_what_was_done() -> Result<()> {
    let style = Style::default();
    let cases = AMBIGUOUS.iter().flat_map(|code| {
        OPERATIONS.into_iter().map(move |operation| Case { operation, code: *code, done: true, style })
    });
    // A Receive that timed out has taken nothing: a host that says so and loses output lies.
    let honest = |case: &Case| case.operation != "Receive" || case.code != 2_150_858_793;
    check_all(cases.filter(honest).collect()).await
}

#[tokio::test]
async fn faults_mean_the_same_in_every_form() -> Result<()> {
    let styles = [(Form::WsmanFault, true), (Form::WmiError, false), (Form::WmiError, true)];
    let cases = styles.into_iter().flat_map(|(form, signed)| {
        NOT_BEGUN.iter().chain(AMBIGUOUS).flat_map(move |code| {
            let style = Style { form, signed };
            ["Create", "Command"].map(|operation| Case { operation, code: *code, done: false, style })
        })
    });
    check_all(cases.collect()).await
}
