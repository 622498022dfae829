//! What must hold of every task, judged by what the hosts counted and what the control plane's users are told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use lictor_proto::v1::{Task, TaskState};
use lictor_tests::{PASSWORD, Windows};
use sha2::{Digest as _, Sha256};

use crate::api::Api;
use crate::work::{Book, Entry, Kind};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) violations: Vec<String>,
    /// Tasks by kind and state.
    outcomes: BTreeMap<(&'static str, &'static str), u32>,
    /// Codes of failures, by state.
    codes: BTreeMap<(&'static str, String), u32>,
    gaps: u32,
    complete: u32,
    again: u32,
    expected: u32,
    succeeded: u32,
}

impl Verdict {
    /// Judges every task.
    pub(crate) async fn over(book: &Book, api: &Api, marks: &BTreeMap<String, u64>) -> Self {
        let mut verdict = Self { violations: book.violations.clone(), ..Self::default() };
        for entry in book.entries.values() {
            let starts = marks.get(&entry.mark).copied().unwrap_or(0);
            if let Err(problem) = verdict.judge(entry, api, starts).await {
                let task = entry.task_id.as_deref().unwrap_or("never submitted");
                let epoch = entry.end.as_ref().map_or(0, |end| end.epoch);
                verdict.violations.push(format!(
                    "{} ({task}, {:?} on host-{}, epoch {epoch}, idempotent {}, carried out {starts} times): {problem:#}",
                    entry.mark, entry.kind, entry.host, entry.idempotent
                ));
            }
        }
        verdict
    }

    async fn judge(&mut self, entry: &Entry, api: &Api, starts: u64) -> Result<()> {
        let end = entry.end.as_ref().context("it has no final state")?;
        let result = end.result.clone().unwrap_or_default();
        let state = end.state();
        let name = name(state);
        *self.outcomes.entry((entry.kind.name(), name)).or_default() += 1;
        if let Some(failure) = &result.failure {
            *self.codes.entry((name, failure.code.clone())).or_default() += 1;
        }
        // Sweeps run when all is well again.
        if entry.kind.succeeds() && entry.kind != Kind::Sweep && !entry.cancelled {
            self.expected += 1;
            self.succeeded += u32::from(state == TaskState::Succeeded);
        }
        self.again += u32::from(starts > 1);

        let now = api.task(&end.task_id).await?;
        anyhow::ensure!(
            (now.state, now.epoch, now.finished_at) == (end.state, end.epoch, end.finished_at),
            "its end has changed: {:?} of epoch {} became {:?} of epoch {}",
            state,
            end.epoch,
            now.state(),
            now.epoch
        );
        let most = if entry.idempotent { end.epoch } else { 1 };
        anyhow::ensure!(starts <= most, "at most {most} would be right");
        let failure = result.failure.unwrap_or_default();
        match state {
            TaskState::Succeeded => {
                anyhow::ensure!(entry.kind.succeeds(), "it cannot succeed");
                anyhow::ensure!(starts >= 1 || entry.kind.only_looks(), "it cannot have succeeded");
                if result.output_gap || result.output_truncated {
                    self.gaps += 1;
                } else if !entry.kind.only_looks() {
                    output(entry, end, api).await?;
                    self.complete += 1;
                }
            }
            TaskState::Failed if result.exit_code.is_some() => {
                anyhow::ensure!(entry.kind == Kind::Exit && result.exit_code == Some(3), "it cannot fail like this");
                anyhow::ensure!(starts >= 1, "it cannot have run");
            }
            // Not carried out, as far as is said.
            TaskState::Failed => {
                anyhow::ensure!(failure.may_have_started || starts == 0, "it was carried out: {failure:?}");
            }
            TaskState::Cancelled => {
                // A drain whose grace is over cancels, too.
                let drained = failure.code.contains("drain") || failure.code.contains("stop");
                anyhow::ensure!(entry.cancelled || drained, "nobody cancelled it: {failure:?}");
            }
            TaskState::Rejected => anyhow::bail!("nobody rejects it: {failure:?}"),
            TaskState::TimedOut => {}
            TaskState::Unknown if entry.kind == Kind::Diagnosis => anyhow::bail!("it only looks: {failure:?}"),
            TaskState::Unknown => anyhow::ensure!(failure.may_have_started, "it does not say so: {failure:?}"),
            other => anyhow::bail!("{other:?} is not final"),
        }
        Ok(())
    }

    /// What was found, as a table.
    pub(crate) fn table(&self) -> String {
        let states: BTreeSet<&str> = self.outcomes.keys().map(|(_, state)| *state).collect();
        let kinds: BTreeSet<&str> = self.outcomes.keys().map(|(kind, _)| *kind).collect();
        let mut text = format!("{:<12}", "");
        for state in &states {
            let _ = write!(text, "{state:>11}");
        }
        for kind in kinds {
            let _ = write!(text, "\n{kind:<12}");
            for state in &states {
                let _ = write!(text, "{:>11}", self.outcomes.get(&(kind, *state)).copied().unwrap_or(0));
            }
        }
        let _ = write!(
            text,
            "\n\n{} of {} tasks that could succeed did; {} outputs complete by hash, {} with a gap; {} tasks carried out \
             more than once, all idempotent",
            self.succeeded, self.expected, self.complete, self.gaps, self.again
        );
        for ((state, code), count) in &self.codes {
            let _ = write!(text, "\n{count:>6}  {state}: {code}");
        }
        text
    }

    /// How many of a hundred tasks that could succeed did.
    pub(crate) fn success(&self) -> u32 {
        self.succeeded * 100 / self.expected.max(1)
    }
}

async fn output(entry: &Entry, end: &Task, api: &Api) -> Result<()> {
    let output = api.output(&end.task_id).await?;
    let expected = entry.kind.output();
    // What lost attempts of an idempotent task had printed stands before it.
    let from = if end.epoch > 1 { output.len().saturating_sub(expected.len()) } else { 0 };
    anyhow::ensure!(
        Sha256::digest(&output[from..]) == Sha256::digest(&expected),
        "its output is not complete: {} bytes instead of {}",
        output.len(),
        expected.len()
    );
    anyhow::ensure!(output.len() as u64 == end.output_bytes, "it is said to have {} bytes", end.output_bytes);
    Ok(())
}

/// What the hosts have against it all: double starts, breaches of the protocol, wrong passwords, things left behind.
pub(crate) fn hosts(hosts: &[Windows], violations: &mut Vec<String>) -> Result<()> {
    for (index, host) in hosts.iter().enumerate() {
        for (counter, most) in [
            ("/commands/most_requests_per_id", 1),
            ("/violation_count", 0),
            ("/shells/open", 0),
            ("/commands/running", 0),
        ] {
            let count = host.count(counter)?;
            if count > most {
                let statistics = host.statistics()?;
                let told = &statistics["violations"];
                violations.push(format!("host-{index}: {counter} is {count}; violations {told}"));
            }
        }
        let failed = host.failed_logons()?;
        if failed > 0 {
            violations.push(format!("host-{index}: {failed} logons were refused"));
        }
    }
    Ok(())
}

/// Files in which the password stands and should not.
pub(crate) fn leaks(directory: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(directory)? {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(leaks(&path)?);
        } else if path.is_file() && !name.contains("password") {
            let content = std::fs::read(&path)?;
            if content.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes()) {
                found.push(format!("{} holds the password", path.display()));
            }
        }
    }
    Ok(found)
}

/// Processes that belong to `directory` by their environment and are none of `known`.
pub(crate) fn strays(directory: &Path, known: &[u32]) -> Result<Vec<String>> {
    let needle = directory.display().to_string().into_bytes();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let (environment, line) = (read("environ"), read("cmdline"));
        let ours = [&environment, &line].iter().any(|text| text.windows(needle.len()).any(|window| window == needle));
        if ours && !known.contains(&pid) {
            found.push(format!("process {pid} is left over: {}", String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    Ok(found)
}

fn name(state: TaskState) -> &'static str {
    match state {
        TaskState::Succeeded => "succeeded",
        TaskState::Failed => "failed",
        TaskState::Cancelled => "cancelled",
        TaskState::TimedOut => "timed out",
        TaskState::Rejected => "rejected",
        TaskState::Unknown => "unknown",
        _ => "open",
    }
}
