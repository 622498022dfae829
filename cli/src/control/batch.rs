//! `lictor batch`, and `lictor task submit` for many hosts: one line of progress, then one table of results.
//!
//! INVARIANT: every task that has ended is told once, also when the control plane goes away in between.

mod ended;
mod hosts;

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use lictor_proto::v1;
use serde::Serialize;
use tokio::time::Instant;
use tonic::Status;

use super::connect::{ControlPlane, unary};
use super::view::{BatchView, batch_page, batch_table};
use super::watch::{FIRST_DELAY, LONGEST_DELAY, OPEN_TIMEOUT, PATIENCE, passing};
use super::{MAX_LISTED, present, print_list, print_one};
use crate::args::Output;
use crate::args::control::{BatchArgs, BatchCommand, ServerArgs, SubmitArgs, Tolerance};
use crate::console;
use crate::exit::Exit;
use crate::failure::{Failure, clean};
use crate::{input, interrupt};
use ended::{Collector, EndedView, result_table};

/// `lictor batch`.
pub(crate) async fn batch(args: BatchArgs, output: Output) -> Result<Exit, Failure> {
    let control_plane = ControlPlane::connect(&args.server).await?;
    match args.command {
        BatchCommand::List { limit } => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(MAX_LISTED);
            let (mut batches, mut page_token) = (Vec::new(), String::new());
            loop {
                let page_size = u32::try_from((limit - batches.len()).min(500)).unwrap_or_default();
                let request = v1::ListBatchesRequest { page_size, page_token };
                let page = unary(control_plane.batches().list_batches(request)).await?;
                batches.extend(page.batches.into_iter().map(BatchView::from));
                page_token = page.next_page_token;
                if page_token.is_empty() || batches.len() >= limit {
                    batches.truncate(limit);
                    return print_list(batches, "batches", batch_table, output);
                }
            }
        }
        BatchCommand::Show { batch_id } => {
            let answer = unary(control_plane.batches().get_batch(v1::GetBatchRequest { batch_id })).await?;
            print_one(&BatchView::from(present(answer.batch, "batch")?), batch_page, output)
        }
        BatchCommand::Watch { batch_id, output_dir } => {
            watch(&control_plane, &batch_id, output_dir.as_deref(), output).await
        }
        BatchCommand::Cancel { batch_id, reason } => {
            let answer =
                unary(control_plane.batches().cancel_batch(v1::CancelBatchRequest { batch_id, reason })).await?;
            print_one(&BatchView::from(present(answer.batch, "batch")?), BatchView::state_line, output)
        }
    }
}

/// `lictor task submit` with a list of hosts.
pub(super) async fn submit(
    server: &ServerArgs,
    args: &SubmitArgs,
    single: v1::SubmitTaskRequest,
    output: Output,
) -> Result<Exit, Failure> {
    let request = request(args, single)?;
    let control_plane = ControlPlane::connect(server).await?;
    let answer = unary(control_plane.batches().submit_batch(request)).await?;
    let batch = present(answer.batch, "batch")?;
    if args.watch {
        if output == Output::Text && std::io::stderr().is_terminal() {
            console::note(&format!("batch {}", clean(&batch.batch_id)));
        }
        return watch(&control_plane, &batch.batch_id, args.output_dir.as_deref(), output).await;
    }
    match output {
        Output::Json => console::print_json(&BatchView::from(batch))?,
        Output::Text => console::print_line(&batch.batch_id)?,
    }
    Ok(Exit::SUCCESS)
}

/// The request for many hosts, from the one for a single host.
fn request(args: &SubmitArgs, single: v1::SubmitTaskRequest) -> Result<v1::SubmitBatchRequest, Failure> {
    let hosts = match &args.hosts_file {
        Some(path) => {
            let dash = Path::new("-");
            if path == dash && [&args.script, &args.stdin].into_iter().flatten().any(|other| other == dash) {
                return Err(Failure::usage(
                    "standard input can be the list of hosts or something else, not both",
                    "Put one of them into a file.",
                ));
            }
            hosts::from_file(&input::text("list of hosts", path, MAX_LIST_BYTES)?)?
        }
        None => hosts::from_values(&args.hosts)?,
    };
    let mut template = single.spec.unwrap_or_default();
    if let Some(target) = &mut template.target {
        target.host.clear();
    }
    Ok(v1::SubmitBatchRequest {
        template: Some(template),
        hosts,
        concurrency: args.concurrency.unwrap_or_default(),
        failure_threshold: args.max_failures.map(|tolerance| match tolerance {
            Tolerance::Count(most) => v1::submit_batch_request::FailureThreshold::MaxFailures(most),
            Tolerance::Percent(most) => v1::submit_batch_request::FailureThreshold::MaxFailuresPercent(most),
        }),
        retries: args.retries.unwrap_or_default(),
        idempotency_key: single.idempotency_key,
    })
}

/// Follows a batch to its end. The exit code is 0 only when all of its tasks succeeded.
async fn watch(
    control_plane: &ControlPlane,
    batch_id: &str,
    output_dir: Option<&Path>,
    output: Output,
) -> Result<Exit, Failure> {
    let interrupted = interrupt::listen("stopping to watch; the batch goes on")?;
    let mut follower = Follower {
        control_plane,
        batch_id,
        output,
        collector: Collector::new(control_plane.clone(), output_dir)?,
        rows: Vec::new(),
        progress: Progress { on: output == Output::Text && std::io::stderr().is_terminal(), shown: false },
        seen: 0,
        heard: None,
        batch: None,
    };
    let batch = tokio::select! {
        followed = follower.follow() => followed?,
        () = interrupted.cancelled() => {
            console::note(&format!("look again: lictor batch watch {batch_id}; stop it: lictor batch cancel {batch_id}"));
            return Ok(Exit::CANCELLED);
        }
    };
    let all_succeeded = batch.all_succeeded();
    follower.end(batch).await?;
    Ok(if all_succeeded { Exit::SUCCESS } else { Exit::BATCH })
}

struct Follower<'a> {
    control_plane: &'a ControlPlane,
    batch_id: &'a str,
    output: Output,
    collector: Collector,
    rows: Vec<EndedView>,
    progress: Progress,
    /// Number of the last end that was told.
    seen: u32,
    /// When the control plane last told something.
    heard: Option<Instant>,
    batch: Option<BatchView>,
}

impl Follower<'_> {
    async fn follow(&mut self) -> Result<BatchView, Failure> {
        let mut delay = FIRST_DELAY;
        loop {
            let before = self.heard;
            let status = match self.stream().await? {
                Ok(batch) => return Ok(batch),
                Err(status) => status,
            };
            let Some(heard) = self.heard.filter(|_| passing(&status)) else { return Err(Failure::from(&status)) };
            if self.heard > before {
                delay = FIRST_DELAY;
            }
            self.progress.clear();
            if heard.elapsed() > PATIENCE {
                console::note(&format!("giving up; the batch goes on: lictor batch watch {}", self.batch_id));
                return Err(Failure::from(&status));
            }
            console::note(&format!("lost the control plane ({}), trying again", clean(status.message())));
            tokio::time::sleep(delay.mul_f64(rand::Rng::random_range(&mut rand::rng(), 0.5..1.0))).await;
            delay = (delay * 2).min(LONGEST_DELAY);
        }
    }

    /// Follows one stream: to the finished batch, or to where it broke.
    async fn stream(&mut self) -> Result<Result<BatchView, Status>, Failure> {
        let request = v1::WatchBatchRequest { batch_id: self.batch_id.to_owned(), from_ended: self.seen };
        let mut client = self.control_plane.batches();
        let mut events = match tokio::time::timeout(OPEN_TIMEOUT, client.watch_batch(request)).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Ok(Err(status)),
            Err(_) => return Ok(Err(Status::unavailable("no answer in time"))),
        };
        loop {
            let event = match events.message().await {
                Ok(Some(v1::WatchBatchResponse { event: Some(event) })) => event,
                Ok(Some(_)) => continue,
                Ok(None) => {
                    return Ok(match self.batch.take().filter(BatchView::is_finished) {
                        Some(batch) => Ok(batch),
                        None => Err(Status::unavailable("the stream ended before the batch")),
                    });
                }
                Err(status) => return Ok(Err(status)),
            };
            self.heard = Some(Instant::now());
            match event {
                v1::watch_batch_response::Event::Batch(batch) => {
                    let batch = BatchView::from(batch);
                    self.progress.show(&batch);
                    self.batch = Some(batch);
                }
                v1::watch_batch_response::Event::Ended(v1::EndedTask { number, task: Some(task) }) => {
                    if number > self.seen {
                        self.seen = number;
                        for row in self.collector.take(number, task).await {
                            self.told(row)?;
                        }
                    }
                }
                v1::watch_batch_response::Event::Ended(_) => {}
            }
        }
    }

    fn told(&mut self, row: EndedView) -> Result<(), Failure> {
        if let Some(problem) = &row.problem {
            self.progress.clear();
            console::note(&format!("{}: {}", clean(&row.host), clean(problem)));
        }
        match self.output {
            Output::Json => console::print_json(&EventView::Task { task: &row }),
            Output::Text => {
                self.rows.push(row);
                Ok(())
            }
        }
    }

    async fn end(&mut self, batch: BatchView) -> Result<(), Failure> {
        for row in self.collector.rest().await {
            self.told(row)?;
        }
        self.progress.clear();
        match self.output {
            Output::Json => console::print_json(&EventView::Summary { batch: &batch }),
            Output::Text => {
                // Ids grow with the order of submission, which is that of the list of hosts.
                self.rows.sort_by(|a, b| a.task_id.cmp(&b.task_id));
                console::print(&result_table(&self.rows))?;
                console::note(batch.state_line().trim_end());
                Ok(())
            }
        }
    }
}

/// An event in JSON, one per line.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum EventView<'a> {
    Task { task: &'a EndedView },
    Summary { batch: &'a BatchView },
}

/// One line on a terminal that is written over and over.
struct Progress {
    on: bool,
    shown: bool,
}

impl Progress {
    fn show(&mut self, batch: &BatchView) {
        if self.on {
            self.shown = true;
            // A terminal that is gone needs no progress.
            let _ = write!(std::io::stderr().lock(), "\r\u{1b}[Klictor: {}", batch.counts_line());
        }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(std::io::stderr().lock(), "\r\u{1b}[K");
        }
    }
}

/// Ten thousand names of the greatest length, with labels.
const MAX_LIST_BYTES: usize = 8 * 1024 * 1024;
