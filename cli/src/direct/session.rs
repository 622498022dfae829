//! `lictor winrm run` and `script`: runs an invocation once or many times over one pool, streaming its output.
//!
//! The first run goes alone, so that a wrong password is tried once and not once per worker; a rejected credential ends
//! everything. Nothing is ever started again by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use lictor_winrm::Target;
use lictor_winrm::mask::Patterns;
use lictor_winrm::output::{Findings, Refinement, Refiner};
use lictor_winrm::pool::{Exchanges, Lease, Pool, PoolSettings, Running, Stopped};
use lictor_winrm::shell::{Event, OutputStream};
use serde::Serialize;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{ConnectionView, Work, milliseconds, warn};
use crate::args::Output;
use crate::args::winrm::RepeatArgs;
use crate::console::{self, Captured, Stream, Streams};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::script::{StderrRecordView, VariableView, variable_table};
use crate::{input, interrupt};

/// Runs `work` as often as asked. The exit code is that of the first run, in order, that did not succeed.
pub(super) async fn run(
    target: &Target,
    work: &Work,
    timeout: Duration,
    runs: &RepeatArgs,
    output: Output,
) -> Result<Exit, Failure> {
    let concurrency = runs.concurrency.min(runs.repeat);
    let pool = Pool::new(PoolSettings {
        // Each worker keeps its shell, so that every run but its first is warm.
        max_shells_per_user: usize::try_from(concurrency).unwrap_or(usize::MAX).min(MAX_SHELLS),
        ..PoolSettings::default()
    });
    let runner = Runner {
        pool,
        target,
        work,
        timeout,
        output,
        streams: Arc::new(Mutex::new(Streams::new())),
        interrupted: interrupt::listen("stopping the command on the host; press Ctrl-C again to quit at once")?,
        give_up: CancellationToken::new(),
    };
    let mut tally = Tally::default();
    let mut result = runner.one_told(1, &mut tally).await;
    let mut rest = futures::stream::iter(2..=runs.repeat)
        .take_while(|_| std::future::ready(!runner.give_up.is_cancelled() && !runner.interrupted.is_cancelled()))
        .map(|number| runner.one(number))
        .buffer_unordered(usize::try_from(concurrency).unwrap_or(1));
    while let (Ok(()), Some(record)) = (&result, rest.next().await) {
        result = runner.tell(record, &mut tally);
    }
    drop(rest);
    let left = runner.pool.close(Instant::now() + CLOSE_TIMEOUT).await;
    if left > 0 {
        console::note(&format!(
            "warning: {left} remote shell(s) could not be deleted; the host deletes them when their idle timeout passes"
        ));
    }
    result?;
    if runs.repeat > 1 {
        console::note(&tally.summary(runs.repeat, &runner.pool));
    }
    Ok(tally.exit())
}

struct Runner<'a> {
    pool: Pool,
    target: &'a Target,
    work: &'a Work,
    timeout: Duration,
    output: Output,
    streams: Arc<Mutex<Streams>>,
    interrupted: CancellationToken,
    /// Set when further runs would only do harm.
    give_up: CancellationToken,
}

impl Runner<'_> {
    async fn one_told(&self, number: u32, tally: &mut Tally) -> Result<(), Failure> {
        let record = self.one(number).await;
        self.tell(record, tally)
    }

    /// Runs once. Every failure is in the record.
    async fn one(&self, number: u32) -> Record {
        let started = Instant::now();
        let deadline = started + self.timeout;
        let mut record = Record::new(number);
        self.lease_and_run(&mut record, started, deadline).await;
        record.total = started.elapsed();
        record
    }

    async fn lease_and_run(&self, record: &mut Record, started: Instant, deadline: Instant) {
        let leased = tokio::select! {
            leased = self.pool.lease(self.target, deadline) => leased,
            () = self.interrupted.cancelled() => return record.cancelled(),
        };
        record.lease = started.elapsed();
        let mut lease = match leased {
            Ok(lease) => lease,
            Err(error) => {
                if error.credential_rejected() {
                    self.give_up.cancel();
                }
                return record.failed(Failure::from(&error));
            }
        };
        let connection = ConnectionView::from(lease.connection());
        if record.number == 1 && self.output == Output::Text {
            warn(&connection);
        }
        record.connection = Some(connection);
        let run_started = Instant::now();
        self.run_on(&mut lease, record, deadline).await;
        record.run = run_started.elapsed();
    }

    async fn run_on(&self, lease: &mut Lease, record: &mut Record, deadline: Instant) {
        let starting = timeout_at(deadline, lease.start(&self.work.invocation, Uuid::new_v4()));
        let running = tokio::select! {
            started = starting => match started {
                Ok(Ok(running)) => running,
                Ok(Err(error)) => return record.failed(Failure::from(&error)),
                Err(_) => return record.timed_out(self.timeout),
            },
            () = self.interrupted.cancelled() => return record.cancelled(),
        };
        let mut refiner = Refiner::new(Refinement {
            raw_stderr: self.work.raw_stderr,
            outputs: self.work.outputs.clone(),
            // Who runs this knows the password, and wants the output as it is.
            secrets: Arc::new(Patterns::new([])),
        });
        self.receive(running, &mut refiner, record, deadline).await;
        let mut rest = Vec::new();
        let findings = refiner.finish(&mut |stream, data| rest.push((stream, data)));
        if let Err(failure) = self.hand_on(rest, record).await
            && record.failure.is_none()
        {
            self.give_up.cancel();
            record.failed(failure);
        }
        record.found(findings);
    }

    async fn receive(&self, mut running: Running<'_>, refiner: &mut Refiner, record: &mut Record, deadline: Instant) {
        let mut source = self.work.streams_input.then(input::stream);
        loop {
            let wanted = running.wants_input();
            let next = tokio::select! {
                next = timeout_at(deadline, running.next()) => next,
                piece = next_piece(&mut source), if wanted => {
                    match piece {
                        Some(Ok(piece)) => running.feed(piece),
                        Some(Err(failure)) => {
                            record.failed(failure);
                            return stop(running, record).await;
                        }
                        None => {
                            running.end_input();
                            source = None;
                        }
                    }
                    continue;
                }
                () = self.interrupted.cancelled() => {
                    record.cancelled();
                    return stop(running, record).await;
                }
            };
            match next {
                Ok(Ok(Event::Output { stream, data })) => {
                    let mut pieces = Vec::new();
                    refiner.push(stream, data, &mut |stream, data| pieces.push((stream, data)));
                    let written = tokio::select! {
                        written = self.hand_on(pieces, record) => written,
                        () = self.interrupted.cancelled() => {
                            record.cancelled();
                            return stop(running, record).await;
                        }
                    };
                    if let Err(failure) = written {
                        self.give_up.cancel();
                        record.failed(failure);
                        return stop(running, record).await;
                    }
                }
                Ok(Ok(Event::Done { exit_code, output_gap })) => {
                    record.exchanges = running.exchanges();
                    return record.done(exit_code, output_gap);
                }
                Ok(Err(error)) => {
                    record.exchanges = running.exchanges();
                    return record.failed(Failure::from(&error));
                }
                Err(_) => {
                    record.timed_out(self.timeout);
                    return stop(running, record).await;
                }
            }
        }
    }

    /// Writes output, or keeps it for the JSON.
    async fn hand_on(&self, pieces: Vec<(OutputStream, Bytes)>, record: &mut Record) -> Result<(), Failure> {
        for (stream, data) in pieces {
            let stream = match stream {
                OutputStream::Stdout => Stream::Stdout,
                OutputStream::Stderr => Stream::Stderr,
            };
            match self.output {
                Output::Json => record.capture(stream, &data),
                Output::Text => self.streams.lock().await.write(stream, &data).await?,
            }
        }
        Ok(())
    }

    /// Tells the end of one run.
    fn tell(&self, record: Record, tally: &mut Tally) -> Result<(), Failure> {
        tally.add(&record);
        if self.output == Output::Json {
            return console::print_json(&RecordView::from(record));
        }
        if let Some(failure) = &record.failure {
            console::print_failure(failure, false);
        }
        if !record.findings.variables.is_empty() {
            // Standard output is the script's.
            let variables: Vec<VariableView> =
                record.findings.variables.iter().cloned().map(VariableView::from).collect();
            console::note(&format!("variables:\n{}", variable_table(&variables).trim_end()));
        }
        if record.output_gap {
            console::note("warning: some output was lost on the wire, though the exit code is known");
        }
        if let Some(code) = record.exit_code
            && record.exit == Exit::REMOTE_OTHER
        {
            console::note(&format!("the remote exit code is {code}"));
        }
        Ok(())
    }
}

/// The next piece of our standard input; never ready when there is none to be read.
async fn next_piece(source: &mut Option<mpsc::Receiver<Result<Bytes, Failure>>>) -> Option<Result<Bytes, Failure>> {
    match source {
        Some(pieces) => pieces.recv().await,
        None => std::future::pending().await,
    }
}

/// Stops the command on its host and notes when that could not be confirmed.
async fn stop(running: Running<'_>, record: &mut Record) {
    record.exchanges = running.exchanges();
    match running.stop(STOP_GRACE).await {
        Stopped::Confirmed { exit_code } => record.exit_code = exit_code,
        Stopped::Unconfirmed(error) => console::note(&format!(
            "warning: the host did not confirm that the command was stopped: {}",
            crate::failure::clean(&crate::failure::chain(&error))
        )),
    }
}

/// All that is known of one run.
#[derive(Debug)]
struct Record {
    number: u32,
    exit: Exit,
    outcome: &'static str,
    exit_code: Option<i32>,
    failure: Option<Failure>,
    output_gap: bool,
    connection: Option<ConnectionView>,
    exchanges: Exchanges,
    stdout: Captured,
    stderr: Captured,
    findings: Findings,
    lease: Duration,
    run: Duration,
    total: Duration,
}

impl Record {
    fn new(number: u32) -> Self {
        Self {
            number,
            exit: Exit::SUCCESS,
            outcome: "succeeded",
            exit_code: None,
            failure: None,
            output_gap: false,
            connection: None,
            exchanges: Exchanges::default(),
            stdout: Captured::default(),
            stderr: Captured::default(),
            findings: Findings::default(),
            lease: Duration::ZERO,
            run: Duration::ZERO,
            total: Duration::ZERO,
        }
    }

    fn done(&mut self, exit_code: i32, output_gap: bool) {
        self.exit = Exit::remote(exit_code);
        self.outcome = if exit_code == 0 { "succeeded" } else { "failed" };
        self.exit_code = Some(exit_code);
        self.output_gap = output_gap;
    }

    /// What was found in the output, once it has ended.
    fn found(&mut self, findings: Findings) {
        if let Some(code) = self.exit_code.filter(|code| self.failure.is_none() && findings.exit_code(*code) != *code) {
            self.done(findings.exit_code(code), self.output_gap);
        }
        self.findings = findings;
    }

    fn failed(&mut self, failure: Failure) {
        self.exit = failure.exit;
        self.outcome = if failure.exit == Exit::UNKNOWN { "unknown" } else { "failed" };
        self.failure = Some(failure);
    }

    fn timed_out(&mut self, timeout: Duration) {
        let failure = Failure::timed_out(format!("not done within {}", humantime::format_duration(timeout)));
        self.exit = failure.exit;
        self.outcome = "timed_out";
        self.failure = Some(failure);
    }

    fn cancelled(&mut self) {
        self.exit = Exit::CANCELLED;
        self.outcome = "cancelled";
    }

    fn capture(&mut self, stream: Stream, data: &Bytes) {
        match stream {
            Stream::Stdout => self.stdout.push(data),
            Stream::Stderr => self.stderr.push(data),
        }
    }
}

/// One run in JSON.
#[derive(Debug, Serialize)]
struct RecordView {
    run: u32,
    outcome: &'static str,
    exit_code: Option<i32>,
    stdout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout_base64: Option<String>,
    stderr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr_base64: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stderr_records: Vec<StderrRecordView>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stderr_records_truncated: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    output_variables: Vec<VariableView>,
    output_truncated: bool,
    output_gap: bool,
    error: Option<Failure>,
    connection: Option<ConnectionView>,
    exchanges: ExchangesView,
    timings_ms: TimingsView,
}

#[derive(Debug, Serialize)]
struct ExchangesView {
    critical: u32,
    total: u32,
}

#[derive(Debug, Serialize)]
struct TimingsView {
    lease: f64,
    run: f64,
    total: f64,
}

impl From<Record> for RecordView {
    fn from(record: Record) -> Self {
        let output_truncated = record.stdout.truncated() || record.stderr.truncated();
        let (stdout, stdout_base64) = record.stdout.into_text().into_fields();
        let (stderr, stderr_base64) = record.stderr.into_text().into_fields();
        Self {
            run: record.number,
            outcome: record.outcome,
            exit_code: record.exit_code,
            stdout,
            stdout_base64,
            stderr,
            stderr_base64,
            stderr_records: record.findings.records.into_iter().map(StderrRecordView::from).collect(),
            stderr_records_truncated: record.findings.records_truncated,
            output_variables: record.findings.variables.into_iter().map(VariableView::from).collect(),
            output_truncated,
            output_gap: record.output_gap,
            error: record.failure,
            connection: record.connection,
            exchanges: ExchangesView { critical: record.exchanges.critical, total: record.exchanges.total },
            timings_ms: TimingsView {
                lease: milliseconds(record.lease),
                run: milliseconds(record.run),
                total: milliseconds(record.total),
            },
        }
    }
}

/// Figures over all runs.
#[derive(Debug, Default)]
struct Tally {
    exits: BTreeMap<u32, Exit>,
    times: Vec<Duration>,
}

impl Tally {
    fn add(&mut self, record: &Record) {
        self.exits.insert(record.number, record.exit);
        self.times.push(record.total);
    }

    fn exit(&self) -> Exit {
        self.exits.values().copied().find(|exit| *exit != Exit::SUCCESS).unwrap_or(Exit::SUCCESS)
    }

    fn summary(&self, asked: u32, pool: &Pool) -> String {
        let succeeded = self.exits.values().filter(|exit| **exit == Exit::SUCCESS).count();
        let mut times = self.times.clone();
        times.sort_unstable();
        let at = |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1))).copied();
        let statistics = pool.statistics();
        format!(
            "{} of {asked} runs, {succeeded} succeeded; median {:.1} ms, 95th percentile {:.1} ms; {} connection(s), {} shell(s), {} warm",
            self.exits.len(),
            milliseconds(at(50).unwrap_or_default()),
            milliseconds(at(95).unwrap_or_default()),
            statistics.connections_total,
            statistics.shells_created_total,
            statistics.warm_total,
        )
    }
}

/// How long a command gets to end by itself after ctrl_c.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// How long deleting the shells may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(15);

/// Windows allows 30 shells per user by default; some are left for others.
const MAX_SHELLS: usize = 25;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_json_with_the_exact_exit_code() {
        let mut record = Record::new(1);
        record.capture(Stream::Stdout, &Bytes::from_static("grün\r\n".as_bytes()));
        record.capture(Stream::Stderr, &Bytes::from_static(&[0xff]));
        record.done(3010, false);
        record.exchanges = Exchanges { critical: 2, total: 2 };
        record.run = Duration::from_micros(1540);
        assert_eq!(record.exit, Exit::REMOTE_OTHER);
        assert_eq!(
            serde_json::to_value(RecordView::from(record)).unwrap(),
            serde_json::json!({
                "run": 1, "outcome": "failed", "exit_code": 3010, "stdout": "grün\r\n", "stderr": null, "stderr_base64": "/w==",
                "output_truncated": false, "output_gap": false, "error": null, "connection": null,
                "exchanges": {"critical": 2, "total": 2}, "timings_ms": {"lease": 0.0, "run": 1.54, "total": 0.0},
            })
        );
    }

    #[test]
    fn the_first_failure_in_order_decides() {
        let mut tally = Tally::default();
        for (number, code) in [(1, 0), (3, 7), (2, 5), (4, 0)] {
            let mut record = Record::new(number);
            record.done(code, false);
            tally.add(&record);
        }
        assert_eq!(tally.exit(), Exit::remote(5));
    }

    #[test]
    fn a_command_that_may_have_started_has_an_unknown_outcome() {
        let mut record = Record::new(1);
        record.failed(Failure::own(
            Exit::UNKNOWN,
            "receive",
            "receive.lost",
            "lost".to_owned(),
            String::new(),
            String::new(),
        ));
        assert_eq!((record.outcome, record.exit), ("unknown", Exit::UNKNOWN));
    }
}
