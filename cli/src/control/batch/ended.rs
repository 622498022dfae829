//! Tasks of a batch that have ended: a line of the table each, with the first line of their output, and on request a file
//! with all of it.
//!
//! Reads outputs of some tasks at once, beside the stream that says what has ended.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lictor_proto::v1;
use serde::Serialize;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;
use tonic::Status;

use super::super::connect::ControlPlane;
use super::super::view::{shortened, state_name, summary};
use crate::console;
use crate::failure::Failure;

/// A task of a batch that has ended.
#[derive(Debug, Serialize)]
pub(super) struct EndedView {
    pub(super) task_id: String,
    pub(super) host: String,
    label: String,
    state: &'static str,
    exit_code: Option<i32>,
    /// Epoch of the last try.
    epoch: u64,
    agent_name: String,
    /// From its last start to its end.
    duration_ms: Option<f64>,
    output_bytes: u64,
    /// First line of its output.
    first_line: Option<String>,
    /// What it found, when it only looks: how many rungs or rows hold, and which do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<String>,
    error: Option<Failure>,
    output_file: Option<PathBuf>,
    /// Its output could not be read or written.
    pub(super) problem: Option<String>,
}

/// Turns tasks into lines, a few at a time.
pub(super) struct Collector {
    control_plane: ControlPlane,
    directory: Option<PathBuf>,
    names: HashSet<String>,
    reading: JoinSet<EndedView>,
}

impl Collector {
    /// Makes the directory, if there is one to be.
    pub(super) fn new(control_plane: ControlPlane, directory: Option<&Path>) -> Result<Self, Failure> {
        if let Some(path) = directory {
            std::fs::create_dir_all(path).map_err(|error| {
                Failure::usage(
                    format!("failed to make the directory {}: {error}", path.display()),
                    "Give --output-dir a directory that you may write.",
                )
            })?;
        }
        let directory = directory.map(Path::to_owned);
        Ok(Self { control_plane, directory, names: HashSet::new(), reading: JoinSet::new() })
    }

    /// Takes in a task; gives out those that are ready.
    pub(super) async fn take(&mut self, number: u32, task: v1::Task) -> Vec<EndedView> {
        let mut ready = Vec::new();
        while self.reading.len() >= AT_ONCE {
            ready.extend(self.next().await);
        }
        let view = EndedView::from(&task);
        let file = self.directory.clone().map(|directory| directory.join(self.file_name(&view.host, number)));
        let control_plane = self.control_plane.clone();
        self.reading.spawn(async move { complete(view, &task, file, &control_plane).await });
        while let Some(done) = self.reading.try_join_next() {
            ready.extend(done.ok());
        }
        ready
    }

    /// Gives out all that are left.
    pub(super) async fn rest(&mut self) -> Vec<EndedView> {
        let mut ready = Vec::new();
        while !self.reading.is_empty() {
            ready.extend(self.next().await);
        }
        ready
    }

    async fn next(&mut self) -> Option<EndedView> {
        self.reading.join_next().await?.ok()
    }

    /// A host's name without anything that a file system could take for more than a name.
    fn file_name(&mut self, host: &str, number: u32) -> String {
        let allowed = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let mut name: String = host.chars().take(MAX_NAME).map(allowed).collect();
        if name.is_empty() || name.starts_with('.') {
            name.insert(0, '_');
        }
        let name = name.to_ascii_lowercase();
        if self.names.insert(name.clone()) { format!("{name}.out") } else { format!("{name}-{number}.out") }
    }
}

impl From<&v1::Task> for EndedView {
    fn from(task: &v1::Task) -> Self {
        let spec = task.spec.clone().unwrap_or_default();
        let target = spec.target.unwrap_or_default();
        let host = match target.connection.map_or(0, |connection| connection.port) {
            0 => target.host,
            port if target.host.contains(':') => format!("[{}]:{port}", target.host),
            port => format!("{}:{port}", target.host),
        };
        let time = |at: &Option<prost_types::Timestamp>| {
            at.and_then(|at| Some(Duration::new(u64::try_from(at.seconds).ok()?, u32::try_from(at.nanos).ok()?)))
        };
        let duration =
            time(&task.finished_at).zip(time(&task.started_at)).map(|(end, start)| end.saturating_sub(start));
        Self {
            task_id: task.task_id.clone(),
            host,
            label: spec.label,
            state: state_name(task.state()),
            exit_code: task.result.as_ref().and_then(|result| result.exit_code),
            epoch: task.epoch,
            agent_name: task.agent_name.clone(),
            duration_ms: duration.map(|duration| duration.as_secs_f64() * 1000.0),
            output_bytes: task.output_bytes,
            first_line: None,
            found: task.result.as_ref().and_then(summary),
            error: task.result.as_ref().and_then(|result| result.failure.as_ref()).map(Failure::from),
            output_file: None,
            problem: None,
        }
    }
}

/// Adds what its output says.
async fn complete(
    mut view: EndedView,
    task: &v1::Task,
    file: Option<PathBuf>,
    control_plane: &ControlPlane,
) -> EndedView {
    if task.output_bytes == 0 && file.is_none() {
        return view;
    }
    // Earlier tries come first in the log; the last one begins where its own bytes do.
    let own = task.result.as_ref().map_or(0, |result| result.output_bytes);
    let from_offset = if task.epoch > 1 { task.output_bytes.saturating_sub(own) } else { 0 };
    let mut first = Vec::new();
    let read = async {
        let mut writer = match &file {
            Some(path) => Some(File::create(path).await.map_err(|error| unwritable(path, &error))?),
            None => None,
        };
        if task.output_bytes > 0 {
            let request = v1::WatchTaskRequest { task_id: task.task_id.clone(), from_offset };
            let refused = |status: Status| format!("its output could not be read: {}", status.message());
            let mut events = control_plane.tasks().watch_task(request).await.map_err(refused)?.into_inner();
            while let Some(event) = events.message().await.map_err(refused)? {
                let Some(v1::watch_task_response::Event::Output(chunk)) = event.event else { continue };
                first.extend_from_slice(chunk.data.get(..FIRST_BYTES.min(chunk.data.len())).unwrap_or_default());
                match (&mut writer, &file) {
                    (Some(writer), Some(path)) => {
                        writer.write_all(&chunk.data).await.map_err(|error| unwritable(path, &error))?;
                    }
                    _ if first_line(&first).is_some() || first.len() >= FIRST_BYTES => break,
                    _ => {}
                }
                first.truncate(FIRST_BYTES);
            }
        }
        if let (Some(writer), Some(path)) = (&mut writer, &file) {
            writer.flush().await.map_err(|error| unwritable(path, &error))?;
        }
        Ok::<(), String>(())
    };
    let outcome = match tokio::time::timeout(READ_TIMEOUT, read).await {
        Ok(outcome) => outcome,
        Err(_) => Err("its output could not be read in time".to_owned()),
    };
    view.problem = outcome.err();
    view.first_line = first_line(&first);
    view.output_file = file.filter(|_| view.problem.is_none());
    view
}

fn unwritable(path: &Path, error: &io::Error) -> String {
    format!("its output could not be written to {}: {error}", path.display())
}

/// The first line that is not blank.
fn first_line(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(shortened)
}

/// One table of results.
pub(super) fn result_table(rows: &[EndedView]) -> String {
    console::table(
        &["host", "state", "exit", "time", "tries", "what it says"],
        rows.iter().map(|row| {
            let failure = row.error.as_ref().map(|failure| {
                let line = failure.message.lines().next().unwrap_or_default();
                format!("[{}] {}", failure.code, line)
            });
            vec![
                row.host.clone(),
                row.state.to_owned(),
                row.exit_code.map(|code| code.to_string()).unwrap_or_default(),
                row.duration_ms.map(|ms| format!("{ms:.0} ms")).unwrap_or_default(),
                row.epoch.to_string(),
                failure.or_else(|| row.found.clone()).or_else(|| row.first_line.clone()).unwrap_or_default(),
            ]
        }),
    )
}

/// Outputs that are read at once.
const AT_ONCE: usize = 16;
/// Enough for a first line.
const FIRST_BYTES: usize = 1024;
/// For the whole output of one task, which may be a GiB on a slow network.
const READ_TIMEOUT: Duration = Duration::from_secs(30 * 60);
const MAX_NAME: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_of_files_stay_in_their_directory() {
        let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let mut collector = Collector::new(ControlPlane::over(channel), None).unwrap();
        for (host, expected) in [
            ("web1", "web1.out"),
            ("WEB1", "web1-1.out"),
            ("../../etc/passwd", "_.._.._etc_passwd.out"),
            ("[fe80::1]:5986", "_fe80__1__5986.out"),
            ("", "_.out"),
        ] {
            assert_eq!(collector.file_name(host, 1), expected);
        }
        assert!(collector.file_name(&"x".repeat(500), 1).len() < 255);
    }

    #[test]
    fn a_table_says_what_failed_or_what_came_first() {
        let task = |host: &str, state: v1::TaskState, code: Option<i32>, failure: Option<v1::Failure>| v1::Task {
            task_id: host.to_owned(),
            spec: Some(v1::TaskSpec {
                target: Some(v1::Target { host: host.to_owned(), connection: None }),
                ..v1::TaskSpec::default()
            }),
            state: state.into(),
            started_at: Some(prost_types::Timestamp { seconds: 10, nanos: 0 }),
            finished_at: Some(prost_types::Timestamp { seconds: 11, nanos: 500_000_000 }),
            result: Some(v1::TaskResult { exit_code: code, failure, ..v1::TaskResult::default() }),
            epoch: 1,
            ..v1::Task::default()
        };
        let failure =
            v1::Failure { code: "connect.refused".into(), message: "no\nmore".into(), ..v1::Failure::default() };
        let mut good = EndedView::from(&task("web1", v1::TaskState::Succeeded, Some(0), None));
        good.first_line = first_line(b"\r\n  hello \r\nworld");
        let bad = EndedView::from(&task("web2", v1::TaskState::Failed, None, Some(failure)));
        let text = result_table(&[good, bad]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["web1", "succeeded", "0", "1500", "ms", "1", "hello"]);
        assert_eq!(lines[2], ["web2", "failed", "-", "1500", "ms", "1", "[connect.refused]", "no"]);
    }
}
