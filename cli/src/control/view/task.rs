//! Tasks: what was asked for, where it stands, and how it ended.

use std::collections::BTreeMap;

use lictor_proto::v1;
use serde::Serialize;

use super::looks::{PostureRowView, RungView, findings_text, posture_text, rung_table, side_table};
use super::{milliseconds, shortened, time};
use crate::console;
use crate::exit::Exit;
use crate::failure::{Failure, clean};
use crate::script::{self, StderrRecordView, VariableState, VariableView};

/// A task.
#[derive(Debug, Serialize)]
pub(in crate::control) struct TaskView {
    pub(in crate::control) task_id: String,
    pub(in crate::control) state: &'static str,
    host: String,
    credential: String,
    #[serde(flatten)]
    kind: KindView,
    label: String,
    idempotent: bool,
    tags: Vec<String>,
    scope: String,
    timeout_ms: Option<f64>,
    queue_timeout_ms: Option<f64>,
    epoch: u64,
    agent_id: String,
    agent_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    batch_id: String,
    submitted_by: String,
    submitted_at: Option<String>,
    assigned_at: Option<String>,
    started_at: Option<String>,
    finished_at: Option<String>,
    cancel_requested: bool,
    output_bytes: u64,
    output_removed_bytes: u64,
    output_removed_at: Option<String>,
    pub(in crate::control) result: Option<ResultView>,
    candidates: Vec<CandidateView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    late_results: Vec<LateResultView>,
}

/// A result that came too late to count.
#[derive(Debug, Serialize)]
struct LateResultView {
    epoch: u64,
    agent_id: String,
    agent_name: String,
    received_at: Option<String>,
    result: Option<ResultView>,
}

/// What a task does.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum KindView {
    ConnectionTest,
    Diagnosis,
    Posture {
        without_script: bool,
    },
    SecretManagerTest {
        manager: String,
    },
    SealSecret {
        manager: String,
        secret: String,
    },
    Command {
        command_line: String,
        arguments: Vec<String>,
        stdin_bytes: usize,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        secret_environment: BTreeMap<String, String>,
    },
    Script {
        language: &'static str,
        script_bytes: usize,
        arguments: Vec<String>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        secret_environment: BTreeMap<String, String>,
    },
    Unknown,
}

/// How a task ended.
#[derive(Debug, Serialize)]
pub(in crate::control) struct ResultView {
    outcome: &'static str,
    pub(in crate::control) exit_code: Option<i32>,
    pub(in crate::control) error: Option<Failure>,
    connection: Option<ConnectionView>,
    exchanges: Option<ExchangesView>,
    output_bytes: u64,
    pub(in crate::control) output_truncated: bool,
    pub(in crate::control) output_gap: bool,
    pub(in crate::control) rungs: Vec<RungView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(in crate::control) posture_rows: Vec<PostureRowView>,
    timings_ms: Option<TimingsView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stderr_records: Vec<StderrRecordView>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stderr_records_truncated: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(in crate::control) output_variables: Vec<VariableView>,
}

#[derive(Debug, Serialize)]
struct ConnectionView {
    auth: String,
    sealed: bool,
    reused: bool,
    tls: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ExchangesView {
    critical: u32,
    total: u32,
}

#[derive(Debug, Serialize)]
struct TimingsView {
    lease: Option<f64>,
    run: Option<f64>,
    total: Option<f64>,
}

#[derive(Debug, Serialize)]
struct CandidateView {
    agent_id: String,
    agent_name: String,
    eligible: bool,
    code: String,
    reason: String,
}

impl From<v1::Task> for TaskView {
    fn from(task: v1::Task) -> Self {
        let state = state_name(task.state());
        let spec = task.spec.unwrap_or_default();
        let selector = spec.selector.unwrap_or_default();
        Self {
            task_id: task.task_id,
            state,
            host: spec.target.map(|target| target.host).unwrap_or_default(),
            credential: spec.credential,
            kind: spec.kind.map_or(KindView::Unknown, KindView::from),
            label: spec.label,
            idempotent: spec.idempotent,
            tags: selector.tags,
            scope: selector.scope,
            timeout_ms: spec.timeout.map(milliseconds),
            queue_timeout_ms: spec.queue_timeout.map(milliseconds),
            epoch: task.epoch,
            agent_id: task.agent_id,
            agent_name: task.agent_name,
            batch_id: task.batch_id,
            submitted_by: task.submitted_by,
            submitted_at: time(task.submitted_at),
            assigned_at: time(task.assigned_at),
            started_at: time(task.started_at),
            finished_at: time(task.finished_at),
            cancel_requested: task.cancel_requested,
            output_bytes: task.output_bytes,
            output_removed_bytes: task.output_removed_bytes,
            output_removed_at: time(task.output_removed_at),
            result: task.result.map(ResultView::from),
            candidates: task.candidates.into_iter().map(CandidateView::from).collect(),
            late_results: task.late_results.into_iter().map(LateResultView::from).collect(),
        }
    }
}

impl TaskView {
    /// One line: what happened to it.
    pub(in crate::control) fn state_line(&self) -> String {
        let wish = if self.cancel_requested && self.result.is_none() { ", cancellation requested" } else { "" };
        format!("task {}: {}{wish}\n", clean(&self.task_id), self.state)
    }

    /// Bytes of output stored.
    pub(in crate::control) fn output_bytes(&self) -> u64 {
        self.output_bytes
    }

    /// Bytes at the beginning of the output that are gone.
    pub(in crate::control) fn output_removed_bytes(&self) -> u64 {
        self.output_removed_bytes
    }

    /// How much output there is, and what of it is missing.
    pub(in crate::control) fn output_text(&self) -> String {
        let mut text = format!("{} bytes", self.output_bytes);
        if self.result.as_ref().is_some_and(|result| result.output_truncated) {
            text.push_str(", cut because a bound was reached");
        }
        if self.output_removed_bytes > 0 {
            let when = self.output_removed_at.as_deref().unwrap_or("some time ago");
            let what = match self.output_removed_bytes >= self.output_bytes {
                true => "none of them kept".to_owned(),
                false => format!("the first {} of them not kept", self.output_removed_bytes),
            };
            text.push_str(&format!("; {what}, removed {when}"));
        }
        text
    }

    fn kind_text(&self) -> String {
        match &self.kind {
            KindView::ConnectionTest => "connection test".to_owned(),
            KindView::Diagnosis => "diagnosis".to_owned(),
            KindView::SecretManagerTest { manager } => format!("test of the secret manager {manager}"),
            KindView::SealSecret { manager, secret } => format!("sealing of {secret} under {manager}"),
            KindView::Posture { without_script: false } => "posture check".to_owned(),
            KindView::Posture { without_script: true } => "posture check without script".to_owned(),
            KindView::Command { command_line, arguments, .. } => {
                std::iter::once(command_line).chain(arguments).map(String::as_str).collect::<Vec<_>>().join(" ")
            }
            KindView::Script { language, script_bytes, .. } => format!("{language} script, {script_bytes} bytes"),
            KindView::Unknown => "unknown kind".to_owned(),
        }
    }

    /// Rungs as a table, and what is wrong with some of them; empty when there are none.
    pub(in crate::control) fn rungs_text(&self) -> String {
        match &self.result {
            Some(result) if !result.rungs.is_empty() => {
                let table = match &self.kind {
                    KindView::SecretManagerTest { .. } => side_table(&result.rungs),
                    _ => rung_table(&result.rungs),
                };
                format!("{table}{}", findings_text(&result.rungs, result.error.as_ref()))
            }
            _ => String::new(),
        }
    }

    fn secrets_text(&self) -> String {
        let secrets = match &self.kind {
            KindView::Command { secret_environment, .. } | KindView::Script { secret_environment, .. } => {
                secret_environment
            }
            _ => return String::new(),
        };
        secrets.iter().map(|(name, secret)| format!("{name}={secret}")).collect::<Vec<_>>().join(", ")
    }

    /// Every agent and why it cannot take the task, as a table; empty when there is nothing to say.
    pub(in crate::control) fn candidates_text(&self) -> String {
        if self.candidates.is_empty() {
            return String::new();
        }
        console::table(
            &["agent", "can take it", "code", "reason"],
            self.candidates.iter().map(|candidate| {
                let name = if candidate.agent_name.is_empty() { &candidate.agent_id } else { &candidate.agent_name };
                let eligible = if candidate.eligible { "yes" } else { "no" };
                vec![name.clone(), eligible.to_owned(), candidate.code.clone(), candidate.reason.clone()]
            }),
        )
    }

    /// The exit code of a finished task.
    pub(in crate::control) fn exit(&self) -> Exit {
        let result = self.result.as_ref();
        let failed = || match result.and_then(|result| result.error.as_ref()) {
            Some(failure) => failure.exit,
            None => Exit::AGENT,
        };
        match self.state {
            "succeeded" => Exit::SUCCESS,
            "failed" => match result.and_then(|result| result.exit_code) {
                // Exit code 0 of a failed task is not success: something else went wrong.
                Some(code) if code != 0 => Exit::remote(code),
                _ => failed(),
            },
            "cancelled" => Exit::CANCELLED,
            "timed_out" => Exit::TIMED_OUT,
            "rejected" => Exit::REJECTED,
            _ => Exit::UNKNOWN,
        }
    }
}

impl From<v1::task_spec::Kind> for KindView {
    fn from(kind: v1::task_spec::Kind) -> Self {
        use v1::task_spec::Kind;
        match kind {
            Kind::ConnectionTest(_) => Self::ConnectionTest,
            Kind::Diagnosis(_) => Self::Diagnosis,
            Kind::Posture(posture) => Self::Posture { without_script: posture.without_script },
            Kind::SecretManagerTest(test) => Self::SecretManagerTest { manager: test.manager },
            Kind::SealSecret(seal) => Self::SealSecret { manager: seal.manager, secret: seal.identifier },
            Kind::Command(command) => Self::Command {
                command_line: command.command_line,
                arguments: command.arguments,
                stdin_bytes: command.stdin.len(),
                secret_environment: secret_environment(command.shell),
            },
            Kind::Script(script) => Self::Script {
                language: match script.language() {
                    v1::ScriptLanguage::Cmd => "cmd",
                    v1::ScriptLanguage::Powershell | v1::ScriptLanguage::Unspecified => "powershell",
                },
                script_bytes: script.text.len(),
                arguments: script.arguments,
                secret_environment: secret_environment(script.shell),
            },
        }
    }
}

/// Names of variables and identifiers of the secrets that they hold.
fn secret_environment(shell: Option<v1::ShellSettings>) -> BTreeMap<String, String> {
    shell.map(|shell| shell.secret_environment.into_iter().collect()).unwrap_or_default()
}

impl From<v1::TaskResult> for ResultView {
    fn from(result: v1::TaskResult) -> Self {
        Self {
            outcome: state_name(result.outcome()),
            exit_code: result.exit_code,
            error: result.failure.as_ref().map(Failure::from),
            exchanges: result
                .connection
                .as_ref()
                .map(|report| ExchangesView { critical: report.critical_exchanges, total: report.total_exchanges }),
            connection: result.connection.map(|report| ConnectionView {
                auth: report.auth,
                sealed: report.sealed,
                reused: report.reused,
                tls: (!report.tls.is_empty()).then_some(report.tls),
                warnings: report.warnings,
            }),
            output_bytes: result.output_bytes,
            output_truncated: result.output_truncated,
            output_gap: result.output_gap,
            rungs: result.rungs.into_iter().map(RungView::from).collect(),
            posture_rows: result.posture_rows.into_iter().map(PostureRowView::from).collect(),
            timings_ms: result.timings.map(|timings| TimingsView {
                lease: timings.lease.map(milliseconds),
                run: timings.run.map(milliseconds),
                total: timings.total.map(milliseconds),
            }),
            stderr_records: result.stderr_records.into_iter().map(StderrRecordView::from).collect(),
            stderr_records_truncated: result.stderr_records_truncated,
            output_variables: result.output_variables.into_iter().map(VariableView::from).collect(),
        }
    }
}

impl From<v1::StderrRecord> for StderrRecordView {
    fn from(record: v1::StderrRecord) -> Self {
        let kind = match record.kind() {
            v1::StderrRecordKind::Error => "error",
            v1::StderrRecordKind::Warning => "warning",
            v1::StderrRecordKind::Verbose => "verbose",
            v1::StderrRecordKind::Debug => "debug",
            v1::StderrRecordKind::Information => "information",
            v1::StderrRecordKind::Unspecified => "unknown",
        };
        Self { kind, text: record.text }
    }
}

impl From<v1::OutputVariable> for VariableView {
    fn from(variable: v1::OutputVariable) -> Self {
        let state = match variable.state() {
            v1::OutputVariableState::Set => VariableState::Set,
            v1::OutputVariableState::Missing => VariableState::Missing,
            v1::OutputVariableState::Unusable => VariableState::Unusable,
            v1::OutputVariableState::Unknown | v1::OutputVariableState::Unspecified => VariableState::Unknown,
        };
        Self::new(variable.name, state, variable.value)
    }
}

impl From<v1::LateResult> for LateResultView {
    fn from(late: v1::LateResult) -> Self {
        Self {
            epoch: late.epoch,
            agent_id: late.agent_id,
            agent_name: late.agent_name,
            received_at: time(late.received_at),
            result: late.result.map(ResultView::from),
        }
    }
}

impl From<v1::Candidate> for CandidateView {
    fn from(candidate: v1::Candidate) -> Self {
        Self {
            agent_id: candidate.agent_id,
            agent_name: candidate.agent_name,
            eligible: candidate.eligible,
            code: candidate.code,
            reason: candidate.reason,
        }
    }
}

/// Tasks in lines.
pub(in crate::control) fn task_table(tasks: &[TaskView]) -> String {
    console::table(
        &["task", "state", "exit", "host", "agent", "submitted", "label", "what"],
        tasks.iter().map(|task| {
            let exit = task.result.as_ref().and_then(|result| result.exit_code).map(|code| code.to_string());
            vec![
                task.task_id.clone(),
                task.state.to_owned(),
                exit.unwrap_or_default(),
                task.host.clone(),
                task.agent_name.clone(),
                task.submitted_at.clone().unwrap_or_default(),
                task.label.clone(),
                shortened(&task.kind_text()),
            ]
        }),
    )
}

/// One task on a page.
pub(in crate::control) fn task_page(task: &TaskView) -> String {
    let mut rows = vec![
        ("task", task.task_id.clone()),
        ("state", task.state.to_owned()),
        ("what", task.kind_text()),
        ("host", task.host.clone()),
        ("credential", task.credential.clone()),
        ("secrets", task.secrets_text()),
        ("label", task.label.clone()),
        ("batch", task.batch_id.clone()),
        ("tags", task.tags.join(", ")),
        ("scope", task.scope.clone()),
        ("agent", task.agent_name.clone()),
        ("epoch", task.epoch.to_string()),
        ("submitted by", task.submitted_by.clone()),
        ("submitted", task.submitted_at.clone().unwrap_or_default()),
        ("started", task.started_at.clone().unwrap_or_default()),
        ("finished", task.finished_at.clone().unwrap_or_default()),
        ("output", task.output_text()),
    ];
    if let Some(result) = &task.result {
        if let Some(code) = result.exit_code {
            rows.push(("exit code", code.to_string()));
        }
        if let Some(connection) = &result.connection {
            let tls = connection.tls.as_deref().unwrap_or("no TLS");
            let sealed = if connection.sealed { "sealed" } else { "not sealed" };
            let reused = if connection.reused { "warm" } else { "new" };
            rows.push(("connection", format!("{}, {sealed}, {tls}, {reused}", connection.auth)));
            rows.extend(connection.warnings.iter().map(|warning| ("warning", warning.clone())));
        }
        if let Some(exchanges) = &result.exchanges {
            rows.push(("exchanges", format!("{} until the result, {} in all", exchanges.critical, exchanges.total)));
        }
        if let Some(total) = result.timings_ms.as_ref().and_then(|timings| timings.total) {
            rows.push(("time", format!("{total:.1} ms on the agent")));
        }
    }
    rows.retain(|(_, value)| !value.is_empty());
    let mut page: String = rows.iter().map(|(name, value)| format!("{:<14}{}\n", name, clean(value))).collect();
    if let Some(result) = &task.result {
        for text in [task.rungs_text(), posture_text(&result.posture_rows)] {
            if !text.is_empty() {
                page.push('\n');
                page.push_str(&text);
            }
        }
        if !result.output_variables.is_empty() {
            page.push('\n');
            page.push_str(&script::variable_table(&result.output_variables));
        }
        if let Some(failure) = &result.error {
            page.push('\n');
            page.push_str(&failure.to_text());
        }
    }
    let candidates = task.candidates_text();
    if !candidates.is_empty() {
        page.push('\n');
        page.push_str(&candidates);
    }
    if !task.late_results.is_empty() {
        page.push_str("\nresults that came too late to count:\n");
        page.push_str(&late_table(&task.late_results));
    }
    page
}

fn late_table(late: &[LateResultView]) -> String {
    console::table(
        &["assignment", "agent", "received", "outcome", "exit", "code"],
        late.iter().map(|late| {
            let name = if late.agent_name.is_empty() { &late.agent_id } else { &late.agent_name };
            let result = late.result.as_ref();
            let exit = result.and_then(|result| result.exit_code).map(|code| code.to_string());
            let code = result.and_then(|result| result.error.as_ref()).map(|error| error.code.to_string());
            vec![
                late.epoch.to_string(),
                name.clone(),
                late.received_at.clone().unwrap_or_default(),
                result.map_or("unknown", |result| result.outcome).to_owned(),
                exit.unwrap_or_default(),
                code.unwrap_or_default(),
            ]
        }),
    )
}

/// A state as a word.
pub(in crate::control) fn state_name(state: v1::TaskState) -> &'static str {
    match state {
        v1::TaskState::Unspecified => "unspecified",
        v1::TaskState::Queued => "queued",
        v1::TaskState::Assigned => "assigned",
        v1::TaskState::Running => "running",
        v1::TaskState::Lost => "lost",
        v1::TaskState::Succeeded => "succeeded",
        v1::TaskState::Failed => "failed",
        v1::TaskState::Cancelled => "cancelled",
        v1::TaskState::TimedOut => "timed_out",
        v1::TaskState::Rejected => "rejected",
        v1::TaskState::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests;
