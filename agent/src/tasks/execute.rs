//! Runs one task on its host: secret, session, journal, Command, Receive, end.
//!
//! INVARIANT: the start is journalled, with the shell and the command id, before Command is sent; and Command is sent
//! once. Waits are bounded by the task's deadline and end early when the engine orders it. Called by the engine.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use lictor_proto::v1::{
    ConnectionReport, Failure, HandBackReason, OutputStream, OutputVariable, OutputVariableState, PostureRow, Rung,
    RungOutcome, StderrRecord, StderrRecordKind, TaskResult, TaskState, Timings,
};
use lictor_winrm::clixml::{Record, RecordKind};
use lictor_winrm::error::ErrorKind;
use lictor_winrm::mask::Patterns;
use lictor_winrm::output::{Findings, Refinement, Refiner};
use lictor_winrm::pool::{self, ConnectionInfo, Exchanges, Lease, Patience, Stopped};
use lictor_winrm::powershell::OutputValue;
use lictor_winrm::shell::{Event as HostEvent, OutputStream as HostStream};
use lictor_winrm::target::{Secret, Target};
use lictor_winrm::{Error as WinrmError, Stage, probe};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::clock::Stamp;
use super::journal::{self, Journal, Start};
use super::output::Log;
use super::spans;
use super::task::{HostTask, Kind, Work};
use super::{Event, TaskKey};
use crate::failure::{self, HandBack, StopCause, Verdict};
use crate::sessions::{Access, Lines, Sessions};
use crate::telemetry::Metrics;

/// What every task needs.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) sessions: Sessions,
    pub(super) journal: Journal,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) metrics: Arc<Metrics>,
}

/// What the engine wants of a task.
#[derive(Debug, Clone, Default)]
pub(super) struct Orders {
    /// Hand it back if it has not started.
    pub(super) drain: bool,
    /// Stop it.
    pub(super) stop: Option<StopCause>,
    /// Tell nobody how it ends.
    pub(super) forget: bool,
}

/// How a task left the agent.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It ended.
    Ended(Box<TaskResult>),
    /// It goes back.
    HandedBack(HandBackReason, Box<Failure>),
}

/// One task under way.
pub(super) struct Run<'a> {
    pub(super) worker: &'a Worker,
    pub(super) task: &'a HostTask,
    pub(super) log: &'a Log,
    pub(super) orders: watch::Receiver<Orders>,
    /// Set before the start is journalled.
    pub(super) started: &'a AtomicBool,
    pub(super) accepted: Instant,
    /// The same moment, for the journal.
    pub(super) accepted_at: Stamp,
    /// What is journalled about the start.
    pub(super) start: Option<Start>,
}

/// What is known when a task ends.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) session: Option<Lease>,
    pub(super) connection: Option<ConnectionInfo>,
    exchanges: Exchanges,
    exit_code: Option<i32>,
    pub(super) output_gap: bool,
    pub(super) rungs: Vec<Rung>,
    pub(super) posture_rows: Vec<PostureRow>,
    findings: Findings,
    /// What Kerberos has to say, when the task wants to know.
    pub(super) lines: Lines,
    pub(super) lease: Option<Duration>,
    pub(super) run: Option<Duration>,
}

impl Run<'_> {
    /// Runs it to its end. The session that was used, if any, is to be dropped once the end is journalled: that tells the
    /// host that the command's output has served.
    pub(super) async fn execute(mut self) -> (Outcome, Option<Lease>) {
        let mut report = Report::default();
        let verdict = match &self.task.kind {
            Kind::ConnectionTest => self.test(&mut report).await,
            Kind::Diagnosis => self.diagnose(&mut report).await,
            Kind::Posture { script } => self.check_posture(*script, &mut report).await,
            Kind::Run(work) => self.run(work, &mut report).await,
            Kind::Follow(followed) => self.follow(followed, &mut report).await,
        };
        if !matches!(verdict, Err(Verdict::HandBack(..))) {
            self.tell_traced(&mut report).await;
        }
        let (outcome, failure) = match verdict {
            Ok(state) => (state, None),
            Err(Verdict::End(state, failure)) => (state, Some(*failure)),
            Err(Verdict::HandBack(reason, failure)) => return (Outcome::HandedBack(reason, failure), report.session),
        };
        let session = report.session.take();
        (Outcome::Ended(Box::new(self.result(outcome, failure, report))), session)
    }

    fn result(&self, outcome: TaskState, failure: Option<Failure>, report: Report) -> TaskResult {
        let connection = report.connection.map(|connection| ConnectionReport {
            auth: connection.auth.into(),
            sealed: connection.sealed,
            reused: connection.reused,
            tls: connection.tls.unwrap_or_default(),
            critical_exchanges: report.exchanges.critical,
            total_exchanges: report.exchanges.total,
            warnings: connection.warnings,
        });
        TaskResult {
            outcome: outcome.into(),
            exit_code: report.exit_code,
            failure,
            connection,
            output_bytes: self.log.end(),
            output_truncated: self.log.is_discarding(),
            output_gap: report.output_gap,
            rungs: report.rungs,
            posture_rows: report.posture_rows,
            sealed_record: None,
            timings: Some(Timings {
                lease: report.lease.map(wire_duration),
                run: report.run.map(wire_duration),
                total: Some(wire_duration(self.accepted.elapsed())),
            }),
            stderr_records: report.findings.records.into_iter().map(wire_record).collect(),
            stderr_records_truncated: report.findings.records_truncated,
            output_variables: report.findings.variables.into_iter().map(wire_variable).collect(),
        }
    }

    async fn test(&mut self, report: &mut Report) -> Result<TaskState, Verdict> {
        let deadline = self.deadline();
        let target = self.access(report).await?;
        let sessions = &self.worker.sessions;
        let turn = tokio::select! {
            biased;
            cause = unstarted_stop(&mut self.orders) => return Err(failure::stopped_before_start(&cause)),
            turn = timeout_at(deadline, sessions.turn(&self.task.plan)) => turn,
        };
        let Ok(_turn) = turn else { return Err(failure::stopped_before_start(&StopCause::Deadline)) };
        self.journal_start().await?;
        let begun = Instant::now();
        let climbed = tokio::select! {
            biased;
            // The ladder cleans up after itself when it is dropped; nothing it runs matters.
            cause = stop(&mut self.orders) => return Err(failure::stopped(&cause)),
            climbed = timeout_at(deadline + SLACK, sessions.test(target, deadline)) => climbed,
        };
        report.run = Some(begun.elapsed());
        let Ok(climbed) = climbed else {
            return Err(failure::stopped(&StopCause::Deadline));
        };
        report.connection.clone_from(&climbed.connection);
        report.rungs = climbed.rungs.iter().map(wire_rung).collect();
        match climbed.failure() {
            None => Ok(TaskState::Succeeded),
            Some(error) => Err(failure::ladder(error, Instant::now() >= deadline)),
        }
    }

    async fn run(&mut self, work: &Work, report: &mut Report) -> Result<TaskState, Verdict> {
        let deadline = self.deadline();
        let Access { target, masks, .. } = self.whole_access(report).await?;
        let sessions = &self.worker.sessions;
        // What the command writes goes to whoever may see the task: not only to those who know the password.
        let secrets = Arc::new(Patterns::new(target.credential.secret().into_iter().chain(&masks).map(Secret::expose)));
        drop(masks);
        let span = spans::lease();
        let leased = tokio::select! {
            biased;
            cause = unstarted_stop(&mut self.orders) => return Err(failure::stopped_before_start(&cause)),
            leased = timeout_at(deadline + SLACK, async {
                let turn = sessions.turn(&self.task.plan).await;
                (turn, sessions.lease(target, deadline).await)
            }.instrument(span.clone())) => leased,
        };
        if let Ok((_, Ok(lease))) = &leased {
            span.record("reused", lease.connection().reused);
        }
        drop(span);
        let (_turn, mut lease) = match leased {
            Ok((turn, Ok(lease))) => (turn, lease),
            Ok((_, Err(error))) => return Err(failure::leasing(&error)),
            Err(_) => return Err(failure::stopped_before_start(&StopCause::Deadline)),
        };
        report.lease = Some(self.accepted.elapsed());
        let begun = Instant::now();
        let mut refiner =
            Refiner::new(Refinement { raw_stderr: work.raw_stderr, outputs: work.outputs.clone(), secrets });
        let verdict = self.command(&mut lease, work, &mut refiner, report).await;
        let verdict = self.refined(refiner, deadline, verdict, report).await;
        report.run = Some(begun.elapsed());
        // Only now: a shell that was gone has been replaced on another connection.
        report.connection = Some(lease.connection());
        report.session = Some(lease);
        verdict
    }

    /// What the host is reached with. Reads keytabs on the agent's disk, or asks AWS KMS, perhaps.
    pub(super) async fn access(&mut self, report: &mut Report) -> Result<Target, Verdict> {
        self.whole_access(report).await.map(|access| access.target)
    }

    /// The same, with what else is known of it.
    pub(super) async fn whole_access(&mut self, report: &mut Report) -> Result<Access, Verdict> {
        let deadline = self.deadline().max(Instant::now() + SLACK);
        let HostTask { plan, brought, .. } = self.task;
        let access = self.worker.sessions.access(plan, brought, deadline).instrument(spans::credential());
        let followed = matches!(self.task.kind, Kind::Follow(_));
        let access = tokio::select! {
            biased;
            // What runs already is stopped on its host, and for that it takes the access.
            cause = unstarted_stop(&mut self.orders), if !followed => return Err(failure::stopped_before_start(&cause)),
            access = timeout_at(deadline, access) => access,
        };
        let Ok(access) = access else { return Err(failure::stopped_before_start(&StopCause::Deadline)) };
        let mut access = access.map_err(|error| failure::access(&error))?;
        report.lines = std::mem::take(&mut access.lines);
        Ok(access)
    }

    /// Adds what Kerberos had to say since the last time to the task's standard error. Not before the task has started or
    /// ended: output counts as a sign that it may have started.
    async fn tell_traced(&mut self, report: &mut Report) {
        let text = report.lines.take();
        if !text.is_empty() {
            let deadline = self.deadline().max(Instant::now() + SLACK);
            let pieces = vec![(HostStream::Stderr, Bytes::from(text))];
            report.output_gap |= self.append(pieces, deadline).await.is_some();
        }
    }

    async fn command(
        &mut self,
        lease: &mut Lease,
        work: &Work,
        refiner: &mut Refiner,
        report: &mut Report,
    ) -> Result<TaskState, Verdict> {
        let deadline = self.deadline();
        let (started, ordered) = self.start(lease, work, deadline).instrument(spans::start()).await?;
        match started {
            Ok(running) => self.attend(running, ordered, refiner, report).instrument(spans::run()).await,
            Err(error) if error.may_have_started() => Err(failure::starting(&error)),
            Err(error) => {
                let cause = ordered.or_else(|| (Instant::now() >= deadline).then_some(StopCause::Deadline));
                Err(match cause {
                    Some(cause) => failure::stopped_while_starting(&cause, &error),
                    None => failure::starting(&error),
                })
            }
        }
    }

    /// Follows a command to its end, or stops it when that is ordered or its time is over.
    pub(super) async fn attend(
        &mut self,
        mut running: pool::Running<'_>,
        mut ordered: Option<StopCause>,
        refiner: &mut Refiner,
        report: &mut Report,
    ) -> Result<TaskState, Verdict> {
        let deadline = self.deadline();
        self.tell_traced(report).await;
        let worker = self.worker;
        let mut noting: Option<BoxFuture<'_, ()>> = None;
        let cause = loop {
            if let Some(cause) = ordered.take() {
                break cause;
            }
            let event = tokio::select! {
                biased;
                cause = stop(&mut self.orders) => break cause,
                () = sleep_until(deadline) => break StopCause::Deadline,
                () = async { match noting.as_mut() { Some(noting) => noting.await, None => pending().await } } => {
                    noting = None;
                    continue;
                }
                event = running.next() => event,
            };
            report.exchanges = running.exchanges();
            if running.has_sent_input()
                && let Some(start) = self.start.as_mut().filter(|start| !start.input_sent)
            {
                start.input_sent = true;
                let (key, record) = (&self.task.key, journal::Record::Started(Box::new(start.clone())));
                // Beside the command. What is dropped half-way was either handed to the journal before the end is, or never.
                noting = Some(Box::pin(async move {
                    if let Err(error) = worker.journal.put(key, &record).await {
                        tracing::debug!(error = %failure::chain(&error), "That the input was sent is not journalled");
                    }
                }));
            }
            match event {
                Ok(HostEvent::Output { stream, data }) => {
                    self.worker.metrics.output_produced(data.len());
                    let mut pieces = Vec::new();
                    refiner.push(stream, data, &mut |stream, data| pieces.push((stream, data)));
                    if let Some(cause) = self.append(pieces, deadline).await {
                        report.output_gap = true;
                        break cause;
                    }
                }
                Ok(HostEvent::Done { exit_code, output_gap }) => {
                    report.exit_code = Some(exit_code);
                    report.output_gap = output_gap;
                    return Ok(state_of(exit_code));
                }
                Err(error) => return Err(failure::receiving(&error)),
            }
        };
        tracing::debug!(cause = ?cause, "Stopping the command");
        match timeout(STOP_LIMIT, running.stop(STOP_GRACE)).await {
            Ok(Stopped::Confirmed { .. }) => Err(failure::stopped(&cause)),
            Ok(Stopped::Unconfirmed(error)) => Err(failure::not_stopped(&cause, &error)),
            Err(_) => Err(failure::not_stopped(&cause, &WinrmError::new(Stage::Close, ErrorKind::DeadlinePassed))),
        }
    }

    /// Sends Command. Orders do not cut it short, for nobody could tell whether the command started; they end the waiting for a
    /// host that puts it off, and are returned with what came of it.
    async fn start<'l>(
        &mut self,
        lease: &'l mut Lease,
        work: &Work,
        deadline: Instant,
    ) -> Result<(Result<pool::Running<'l>, WinrmError>, Option<StopCause>), Verdict> {
        let given_up = CancellationToken::new();
        let patience = Patience { until: deadline, given_up: given_up.clone() };
        let mut notes = Notes {
            worker: self.worker,
            key: &self.task.key,
            started: self.started,
            start: Start {
                host: self.task.plan.host().to_owned(),
                shell_id: String::new(),
                command_id: work.command_id.to_string(),
                accepted: self.accepted_at.clone(),
                input_sent: !work.invocation.has_input(),
                secrets: self.task.plan.shell_secrets(&self.task.brought),
                skipped: 0,
            },
            noted: false,
            failed: None,
        };
        let (started, ordered) = {
            let start = lease.start_patiently(&work.invocation, work.command_id, patience, &mut notes);
            tokio::pin!(start);
            tokio::select! {
                biased;
                cause = stop(&mut self.orders) => {
                    given_up.cancel();
                    (start.await, Some(cause))
                }
                started = &mut start => (started, None),
            }
        };
        let Notes { start, noted, failed, .. } = notes;
        self.start = noted.then_some(start);
        match failed {
            // What is not journalled is not started: after a crash nobody would know of it.
            Some(error) if !noted => Err(self.worker.impaired(failure::chain(&error)).await.into()),
            Some(error) => Err(failure::not_journalled(&failure::chain(&error))),
            None => Ok((started, ordered)),
        }
    }

    /// Adds pieces to the log. Says what kept it from doing so, if anything did.
    async fn append(&mut self, pieces: Vec<(HostStream, Bytes)>, deadline: Instant) -> Option<StopCause> {
        for (stream, data) in pieces {
            let stream = match stream {
                HostStream::Stdout => OutputStream::Stdout,
                HostStream::Stderr => OutputStream::Stderr,
            };
            tokio::select! {
                biased;
                () = self.log.append(stream, data) => {}
                cause = stop(&mut self.orders) => return Some(cause),
                () = sleep_until(deadline) => return Some(StopCause::Deadline),
            }
        }
        None
    }

    /// The output has ended, however: hands on what was held back, and reports what was found in it.
    pub(super) async fn refined(
        &mut self,
        refiner: Refiner,
        deadline: Instant,
        verdict: Result<TaskState, Verdict>,
        report: &mut Report,
    ) -> Result<TaskState, Verdict> {
        let mut rest = Vec::new();
        let findings = refiner.finish(&mut |stream, data| rest.push((stream, data)));
        report.output_gap |= self.append(rest, deadline).await.is_some();
        report.exit_code = report.exit_code.map(|code| findings.exit_code(code));
        let verdict = match (verdict, report.exit_code) {
            (Ok(_), Some(code)) => Ok(state_of(code)),
            (verdict, _) => verdict,
        };
        report.findings = findings;
        verdict
    }

    /// For what has no command of its own.
    async fn journal_start(&self) -> Result<(), Verdict> {
        let start = Start { host: self.task.plan.host().to_owned(), ..Start::default() };
        let (worker, key) = (self.worker, &self.task.key);
        let mut notes = Notes { worker, key, started: self.started, start, noted: false, failed: None };
        if notes.write().await {
            return Ok(());
        }
        let error = notes.failed.as_ref().map(|error| failure::chain(error)).unwrap_or_default();
        Err(self.worker.impaired(error).await.into())
    }

    pub(super) fn deadline(&self) -> Instant {
        match &self.task.kind {
            Kind::Follow(followed) => followed.deadline,
            Kind::ConnectionTest | Kind::Diagnosis | Kind::Posture { .. } | Kind::Run(_) => {
                self.accepted + self.task.timeout
            }
        }
    }
}

/// Journals the start before Command is sent, and again when another shell took the first one's place.
struct Notes<'a> {
    worker: &'a Worker,
    key: &'a TaskKey,
    started: &'a AtomicBool,
    start: Start,
    noted: bool,
    failed: Option<journal::JournalError>,
}

impl Notes<'_> {
    async fn write(&mut self) -> bool {
        self.started.store(true, Ordering::Release);
        let record = journal::Record::Started(Box::new(self.start.clone()));
        if let Err(error) = self.worker.journal.put(self.key, &record).await {
            self.started.store(self.noted, Ordering::Release);
            self.failed = Some(error);
            return false;
        }
        if !std::mem::replace(&mut self.noted, true) {
            self.worker.tell(Event::Started(self.key.clone())).await;
        }
        true
    }
}

impl pool::Ledger for Notes<'_> {
    async fn note(&mut self, shell_id: &str) -> bool {
        shell_id.clone_into(&mut self.start.shell_id);
        self.write().await
    }
}

impl Worker {
    /// Tells the link. When it is gone, the journal keeps what matters.
    pub(super) async fn tell(&self, event: Event) {
        // Full means that the link has a backlog; it always reads on, connected or not.
        if self.events.send(event).await.is_err() {
            tracing::debug!("The link is gone, an event was dropped");
        }
    }

    /// The journal could not take a task. The link hears why before it hears of the task, so that no other comes.
    pub(super) async fn impaired(&self, why: String) -> HandBack {
        self.tell(Event::Impaired(Some(why.as_str().into()))).await;
        failure::not_written_down(why)
    }

    /// Makes the result and the unacknowledged output safe, then gives the session back, then tells the link. False when the
    /// result is not in the journal: it is told all the same.
    pub(super) async fn finish(
        &self,
        key: &TaskKey,
        log: &Log,
        result: Box<TaskResult>,
        session: Option<Lease>,
    ) -> bool {
        let journalled = self.journal_end(key, log, result.clone()).await;
        drop(session);
        self.tell(Event::Ended { key: key.clone(), result, log: log.clone() }).await;
        journalled
    }

    /// Makes the result and the unacknowledged output safe. False when that failed.
    pub(super) async fn journal_end(&self, key: &TaskKey, log: &Log, result: Box<TaskResult>) -> bool {
        let persisted = tokio::task::spawn_blocking({
            let log = log.clone();
            move || log.persist()
        })
        .await;
        let tail = match persisted {
            Ok(Ok(super::output::Tail::Inline(pieces))) => pieces,
            Ok(Ok(super::output::Tail::Files)) => Vec::new(),
            // The result is worth more than its output; the output is still sent as long as this process lives.
            Ok(Err(error)) => {
                tracing::error!(error = %error, "Output cannot be written and would be lost in a crash");
                Vec::new()
            }
            Err(error) => {
                tracing::error!(error = %error, "Output was not written and would be lost in a crash");
                Vec::new()
            }
        };
        let record = journal::Record::Ended { result, tail, skipped: log.skipped() };
        let journalled = self.journal.put(key, &record).await;
        if let Err(error) = &journalled {
            tracing::error!(error = %failure::chain(error), "The result is not journalled and would be lost in a crash");
        }
        journalled.is_ok()
    }
}

/// Waits for the order to stop.
pub(super) async fn stop(orders: &mut watch::Receiver<Orders>) -> StopCause {
    let ordered = orders.wait_for(|orders| orders.stop.is_some()).await.ok().and_then(|orders| orders.stop.clone());
    // The engine went away, and with it the agent.
    ordered.unwrap_or(StopCause::Drained)
}

/// Waits for any order that ends what has not started.
pub(super) async fn unstarted_stop(orders: &mut watch::Receiver<Orders>) -> StopCause {
    let ordered = orders.wait_for(|orders| orders.stop.is_some() || orders.drain).await;
    ordered.ok().and_then(|orders| orders.stop.clone()).unwrap_or(StopCause::Drained)
}

fn state_of(exit_code: i32) -> TaskState {
    if exit_code == 0 { TaskState::Succeeded } else { TaskState::Failed }
}

fn wire_record(record: Record) -> StderrRecord {
    let kind = match record.kind {
        RecordKind::Error => StderrRecordKind::Error,
        RecordKind::Warning => StderrRecordKind::Warning,
        RecordKind::Verbose => StderrRecordKind::Verbose,
        RecordKind::Debug => StderrRecordKind::Debug,
        RecordKind::Information => StderrRecordKind::Information,
    };
    StderrRecord { kind: kind.into(), text: record.text }
}

fn wire_variable((name, value): (String, OutputValue)) -> OutputVariable {
    let (state, value) = match value {
        OutputValue::Value(value) => (OutputVariableState::Set, value),
        OutputValue::Missing => (OutputVariableState::Missing, String::new()),
        OutputValue::Unusable => (OutputVariableState::Unusable, String::new()),
        OutputValue::Unknown => (OutputVariableState::Unknown, String::new()),
    };
    OutputVariable { name, state: state.into(), value }
}

fn wire_rung(rung: &probe::Rung) -> Rung {
    let (outcome, failure) = match &rung.outcome {
        probe::RungOutcome::Passed => (RungOutcome::Passed, None),
        probe::RungOutcome::Warning => (RungOutcome::Warning, None),
        probe::RungOutcome::Skipped => (RungOutcome::Skipped, None),
        probe::RungOutcome::Failed(error) => (RungOutcome::Failed, Some(failure::winrm(error))),
    };
    Rung {
        stage: rung.stage.as_str().into(),
        outcome: outcome.into(),
        elapsed: Some(wire_duration(rung.elapsed)),
        detail: rung.detail.clone(),
        failure,
    }
}

pub(super) fn wire_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration).unwrap_or_default()
}

/// From ctrl_c to terminate.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(5);
/// For the whole stop: grace, terminate and Delete, each an exchange with its own read timeout.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(60);
/// What a callee that keeps the deadline itself gets to say so in its own words.
pub(super) const SLACK: Duration = Duration::from_secs(2);
