//! Following a task to its end: live output, byte-exact, complete and without duplicates, also when the control plane goes
//! away in between.
//!
//! INVARIANT: every byte from the first offset on is written once, in order; when bytes are missing in the log that is said.

use std::io::IsTerminal as _;
use std::time::Duration;

use bytes::Bytes;
use lictor_proto::v1;
use rand::Rng as _;
use serde::Serialize;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::connect::ControlPlane;
use super::view::{self, TaskView};
use crate::args::Output;
use crate::console::{self, Stream, Streams, Text};
use crate::exit::Exit;
use crate::failure::{Failure, clean};
use crate::{interrupt, script};

/// Follows a task; the exit code is the task's.
pub(super) async fn watch(
    control_plane: &ControlPlane,
    task_id: &str,
    offset: u64,
    output: Output,
) -> Result<Exit, Failure> {
    let interrupted = interrupt::listen("stopping to watch; the task goes on")?;
    let mut printer = Printer { output, streams: Streams::new(), told: None };
    let followed = tokio::select! {
        followed = follow(control_plane, task_id, offset, &mut printer) => followed?,
        () = interrupted.cancelled() => {
            console::note(&format!("look again: lictor task watch {task_id}; stop it: lictor task cancel {task_id}"));
            return Ok(Exit::CANCELLED);
        }
    };
    printer.end(&followed)?;
    Ok(followed.exit())
}

/// Says the id of a task that is about to be watched, to people only.
pub(super) fn announce(task_id: &str) {
    if std::io::stderr().is_terminal() {
        console::note(&format!("task {}", clean(task_id)));
    }
}

/// Where the events of a followed task go.
trait Sink {
    async fn output(&mut self, chunk: &v1::OutputChunk) -> Result<(), Failure>;
    fn state(&mut self, task: v1::Task) -> Result<(), Failure>;
    fn note(&mut self, text: &str);
}

/// Follows a task to its final state over as many streams as it takes.
async fn follow(
    control_plane: &ControlPlane,
    task_id: &str,
    from_offset: u64,
    sink: &mut impl Sink,
) -> Result<TaskView, Failure> {
    let mut place = Place { next: from_offset, seen: false, progress: Instant::now(), last: None };
    let mut delay = FIRST_DELAY;
    loop {
        let before = place.progress;
        let status = match stream(control_plane, task_id, &mut place, sink).await? {
            Ended::Finished => match place.last.take() {
                Some(task) => return Ok(task),
                None => Status::unavailable("the control plane ended the stream before it said anything"),
            },
            Ended::Cut(status) => status,
        };
        if !place.seen || !passing(&status) {
            return Err(Failure::from(&status));
        }
        if place.progress > before {
            delay = FIRST_DELAY;
        }
        if place.progress.elapsed() > PATIENCE {
            sink.note(&format!(
                "giving up; the task goes on: lictor task watch {task_id} --from-offset {}",
                place.next
            ));
            return Err(Failure::from(&status));
        }
        sink.note(&format!("lost the control plane ({}), trying again", clean(status.message())));
        let jitter = rand::rng().random_range(0.5..1.0);
        tokio::time::sleep(delay.mul_f64(jitter)).await;
        delay = (delay * 2).min(LONGEST_DELAY);
    }
}

/// How far we are.
struct Place {
    /// First byte that was not written yet.
    next: u64,
    /// The control plane answered at least once, so a failure to reach it is a passing one.
    seen: bool,
    /// When it last told us something.
    progress: Instant,
    /// The task as last told.
    last: Option<TaskView>,
}

enum Ended {
    /// The final state and all output were told.
    Finished,
    /// The stream broke.
    Cut(Status),
}

/// Follows one stream to its end.
async fn stream(
    control_plane: &ControlPlane,
    task_id: &str,
    place: &mut Place,
    sink: &mut impl Sink,
) -> Result<Ended, Failure> {
    let request = v1::WatchTaskRequest { task_id: task_id.to_owned(), from_offset: place.next };
    let mut client = control_plane.tasks();
    let mut events = match tokio::time::timeout(OPEN_TIMEOUT, client.watch_task(request)).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return Ok(Ended::Cut(status)),
        Err(_) => return Ok(Ended::Cut(Status::unavailable("no answer in time"))),
    };
    let mut finished = false;
    loop {
        // A silent task is silent for as long as it likes; HTTP/2 pings notice a peer that is gone.
        let event = match events.message().await {
            Ok(Some(v1::WatchTaskResponse { event: Some(event) })) => event,
            Ok(Some(_)) => continue,
            Ok(None) if finished => return Ok(Ended::Finished),
            Ok(None) => return Ok(Ended::Cut(Status::unavailable("the stream ended before the task"))),
            // What follows the final state is only the end of the stream, unless output is missing.
            Err(_) if finished && place.complete() => return Ok(Ended::Finished),
            Err(status) => return Ok(Ended::Cut(status)),
        };
        place.seen = true;
        place.progress = Instant::now();
        match event {
            v1::watch_task_response::Event::Task(task) => {
                finished = is_final(task.state());
                let view = TaskView::from(task.clone());
                if view.output_removed_bytes() > place.next {
                    place.next = view.output_removed_bytes();
                    sink.note(&format!("warning: output is no longer kept: {}", view.output_text()));
                }
                place.last = Some(view);
                sink.state(task)?;
            }
            v1::watch_task_response::Event::Output(chunk) => {
                if let Some(chunk) = place.advance(chunk, sink) {
                    sink.output(&chunk).await?;
                }
            }
        }
    }
}

impl Place {
    /// Takes what is new of a chunk.
    fn advance(&mut self, mut chunk: v1::OutputChunk, sink: &mut impl Sink) -> Option<v1::OutputChunk> {
        let end = chunk.offset.saturating_add(chunk.data.len() as u64);
        if end <= self.next {
            return None;
        }
        if chunk.offset > self.next {
            sink.note(&format!("warning: output bytes {} to {} are missing in the log", self.next, chunk.offset - 1));
        } else if let Ok(known) = usize::try_from(self.next - chunk.offset) {
            chunk.data = chunk.data.slice(known..);
            chunk.offset = self.next;
        }
        self.next = end;
        Some(chunk)
    }

    /// All output that the control plane stored was written.
    fn complete(&self) -> bool {
        self.last.as_ref().is_some_and(|task| task.output_bytes() <= self.next)
    }
}

/// Prints events.
struct Printer {
    output: Output,
    streams: Streams,
    told: Option<&'static str>,
}

impl Sink for Printer {
    async fn output(&mut self, chunk: &v1::OutputChunk) -> Result<(), Failure> {
        match self.output {
            Output::Text => self.streams.write(stream_of(chunk), &chunk.data).await,
            Output::Json => console::print_json(&EventView::output(chunk)),
        }
    }

    fn state(&mut self, task: v1::Task) -> Result<(), Failure> {
        if self.output == Output::Json {
            return console::print_json(&EventView::Task { task: Box::new(TaskView::from(task)) });
        }
        let state = view::state_name(task.state());
        // Standard error is the remote command's as well; only people see notes between its lines.
        if std::io::stderr().is_terminal() && self.told.replace(state) != Some(state) && !is_final(task.state()) {
            let by =
                if task.agent_name.is_empty() { String::new() } else { format!(" by {}", clean(&task.agent_name)) };
            console::note(&format!("{state}{by}"));
        }
        Ok(())
    }

    fn note(&mut self, text: &str) {
        console::note(text);
    }
}

impl Printer {
    /// Tells what is not in the output: what a task found that only looks, and what went wrong.
    fn end(&self, task: &TaskView) -> Result<(), Failure> {
        let exit = task.exit();
        if self.output == Output::Json {
            return Ok(());
        }
        if let Some(result) = &task.result {
            for text in [task.rungs_text(), view::posture_text(&result.posture_rows)] {
                if !text.is_empty() {
                    console::print(&text)?;
                }
            }
            if !result.output_variables.is_empty() {
                // Standard output is the script's.
                console::note(&format!("variables:\n{}", script::variable_table(&result.output_variables).trim_end()));
            }
            if result.output_truncated {
                console::note("warning: the output was cut because a bound was reached");
            }
            if result.output_gap {
                console::note("warning: some output was lost on the wire, though the exit code is known");
            }
            if let Some(failure) = &result.error {
                console::print_failure(failure, false);
            }
            if let Some(code) = result.exit_code
                && exit == Exit::REMOTE_OTHER
            {
                console::note(&format!("the remote exit code is {code}"));
            }
        }
        if matches!(exit, Exit::UNKNOWN | Exit::REJECTED | Exit::CANCELLED | Exit::TIMED_OUT | Exit::AGENT) {
            console::note(task.state_line().trim_end());
        }
        if exit == Exit::REJECTED {
            let candidates = task.candidates_text();
            if !candidates.is_empty() {
                console::note(&format!("agents:\n{}", candidates.trim_end()));
            }
        }
        Ok(())
    }
}

/// An event in JSON, one per line.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum EventView {
    Task {
        task: Box<TaskView>,
    },
    Output {
        offset: u64,
        stream: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        data_base64: Option<String>,
    },
}

impl EventView {
    fn output(chunk: &v1::OutputChunk) -> Self {
        let (data, data_base64) = Text::new(Bytes::clone(&chunk.data).into()).into_fields();
        let stream = match stream_of(chunk) {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        Self::Output { offset: chunk.offset, stream, data, data_base64 }
    }
}

fn stream_of(chunk: &v1::OutputChunk) -> Stream {
    match chunk.stream() {
        v1::OutputStream::Stderr => Stream::Stderr,
        v1::OutputStream::Stdout | v1::OutputStream::Unspecified => Stream::Stdout,
    }
}

fn is_final(state: v1::TaskState) -> bool {
    match state {
        v1::TaskState::Unspecified
        | v1::TaskState::Queued
        | v1::TaskState::Assigned
        | v1::TaskState::Running
        | v1::TaskState::Lost => false,
        v1::TaskState::Succeeded
        | v1::TaskState::Failed
        | v1::TaskState::Cancelled
        | v1::TaskState::TimedOut
        | v1::TaskState::Rejected
        | v1::TaskState::Unknown => true,
    }
}

/// Whether waiting may help. What the control plane itself said about the request stays said.
pub(super) fn passing(status: &Status) -> bool {
    matches!(
        status.code(),
        // A restarting control plane shows as any of these, depending on where the stream broke.
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::Aborted | Code::DeadlineExceeded
    )
}

pub(super) const FIRST_DELAY: Duration = Duration::from_millis(200);
pub(super) const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// How long a control plane may be away.
pub(super) const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// For the head of the stream, not for its events.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
