//! `TaskService`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use lictor_proto::v1::task_service_server::TaskService;
use lictor_proto::v1::{
    CancelTaskRequest, CancelTaskResponse, GetTaskRequest, GetTaskResponse, ListTasksRequest, ListTasksResponse,
    SubmitTaskRequest, SubmitTaskResponse, Task, TaskSpec, TaskState, WatchTaskRequest, WatchTaskResponse,
    watch_task_response,
};
use tonic::{Request, Response, Status};
use tracing::Instrument as _;
use uuid::Uuid;

use super::door::{caller, outside};
use super::follower::Follower;
use super::shown::shown;
use super::{Api, page_size, parse_page_token};
use crate::access::Caller;
use crate::engine::Command;
use crate::store::late::late_results;
use crate::store::tasks::{self, NewTask, TaskView};
use crate::telemetry::{self, Submission};
use crate::validate;

impl Api {
    /// Checks and stores a task; the answer is the task as stored.
    pub(super) async fn submit(
        &self,
        spec: Option<TaskSpec>,
        idempotency_key: String,
        caller: &Caller,
        submission: Submission,
    ) -> Result<Task, Status> {
        let Submission { span, traceparent } = submission;
        let result = self.accept(spec, idempotency_key, caller, traceparent).instrument(span.clone()).await;
        telemetry::note_submission(&span, &result);
        result
    }

    async fn accept(
        &self,
        spec: Option<TaskSpec>,
        idempotency_key: String,
        caller: &Caller,
        traceparent: Option<String>,
    ) -> Result<Task, Status> {
        let (mut spec, queue_timeout) = validate::task(spec.unwrap_or_default(), &idempotency_key)?;
        let wanted = spec.selector.as_ref().map_or("", |selector| selector.scope.as_str());
        let scope = caller.scope_for(wanted).ok_or_else(|| outside(caller))?;
        if !scope.is_empty() {
            spec.selector.get_or_insert_default().scope = scope;
        }
        let task = Box::new(NewTask {
            task_id: Uuid::now_v7().to_string(),
            spec,
            queue_timeout,
            submitted_by: caller.user.clone(),
            idempotency_key: (!idempotency_key.is_empty()).then_some(idempotency_key),
            batch: None,
            retries: 0,
            traceparent,
        });
        let by = caller.clone();
        let task_id = self.engine.ask(|reply| Command::Submit { task, by, reply }).await?;
        Ok(self.view(&task_id, caller).await?.task)
    }

    /// The task as it is now and as the caller may see it; with its candidates while it waits.
    pub(super) async fn view(&self, task_id: &str, caller: &Caller) -> Result<TaskView, Status> {
        let found = tasks::view(&self.readers, task_id).await?;
        // Somebody else's task and no task look the same.
        let Some(mut view) = found.filter(|view| caller.sees(&view.scope)) else {
            return Err(Status::not_found(format!("there is no task with the id {}", validate::quoted(task_id))));
        };
        if view.task.state() == TaskState::Queued {
            let task_id = task_id.to_owned();
            view.task.candidates = self.engine.ask(|reply| Command::Candidates { task_id, reply }).await?;
        }
        view.task = shown(view.task, caller);
        Ok(view)
    }
}

#[tonic::async_trait]
impl TaskService for Api {
    async fn submit_task(&self, request: Request<SubmitTaskRequest>) -> Result<Response<SubmitTaskResponse>, Status> {
        let caller = caller(&request)?;
        let submission = Submission::of(request.metadata());
        let SubmitTaskRequest { spec, idempotency_key } = request.into_inner();
        let task = self.submit(spec, idempotency_key, &caller, submission).await?;
        Ok(Response::new(SubmitTaskResponse { task: Some(task) }))
    }

    async fn get_task(&self, request: Request<GetTaskRequest>) -> Result<Response<GetTaskResponse>, Status> {
        let caller = caller(&request)?;
        let mut task = self.view(&request.into_inner().task_id, &caller).await?.task;
        task.late_results = late_results(&self.readers, &task.task_id).await?;
        Ok(Response::new(GetTaskResponse { task: Some(task) }))
    }

    async fn list_tasks(&self, request: Request<ListTasksRequest>) -> Result<Response<ListTasksResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let before = parse_page_token(&request.page_token)?;
        let states: Result<Vec<TaskState>, _> =
            request.states.iter().take(64).map(|state| TaskState::try_from(*state)).collect();
        let states = states.map_err(|_| Status::invalid_argument("states: not a state of a task"))?;
        let batch_id = Some(request.batch_id.as_str()).filter(|batch_id| !batch_id.is_empty());
        let size = page_size(request.page_size, 50, 500);
        // One more than asked for tells whether there is another page.
        let mut views = tasks::list(&self.readers, &caller.scope, before, &states, batch_id, size + 1).await?;
        let more = views.truncated || views.tasks.len() > size as usize;
        views.tasks.truncate(size as usize);
        let next_page_token = match views.tasks.last() {
            Some(last) if more => last.seq.to_string(),
            _ => String::new(),
        };
        let tasks = views.tasks.into_iter().map(|view| shown(view.task, &caller)).collect();
        Ok(Response::new(ListTasksResponse { tasks, next_page_token }))
    }

    type WatchTaskStream = Pin<Box<dyn Stream<Item = Result<WatchTaskResponse, Status>> + Send>>;

    async fn watch_task(&self, request: Request<WatchTaskRequest>) -> Result<Response<Self::WatchTaskStream>, Status> {
        let caller = caller(&request)?;
        let WatchTaskRequest { task_id, from_offset } = request.into_inner();
        let follower = Follower::new(self, self.watchers.subscribe(&task_id), caller)?;
        self.view(&task_id, &follower.caller).await?;
        let watch = Watch {
            api: self.clone(),
            task_id,
            follower,
            offset: from_offset,
            shown: None,
            ready: VecDeque::new(),
            over: false,
        };
        let stream = futures::stream::unfold(watch, |mut watch| async move {
            let next = watch.next().await.transpose()?;
            watch.over |= next.is_err();
            Some((next, watch))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn cancel_task(&self, request: Request<CancelTaskRequest>) -> Result<Response<CancelTaskResponse>, Status> {
        let caller = caller(&request)?;
        let CancelTaskRequest { task_id, reason } = request.into_inner();
        self.view(&task_id, &caller).await?;
        let reason = validate::reason(&reason);
        let (id, by) = (task_id.clone(), caller.clone());
        self.engine.ask(|reply| Command::Cancel { task_id: id, reason, by, reply }).await?;
        let task = self.view(&task_id, &caller).await?.task;
        Ok(Response::new(CancelTaskResponse { task: Some(task) }))
    }
}

/// One follower of one task. It reads the database when it has sent what it read before: a slow one is only slow
/// itself.
struct Watch {
    api: Api,
    task_id: String,
    follower: Follower<()>,
    /// First byte not sent yet.
    offset: u64,
    /// State and details that were sent last.
    shown: Option<(i32, u64, bool)>,
    ready: VecDeque<watch_task_response::Event>,
    over: bool,
}

impl Watch {
    async fn next(&mut self) -> Result<Option<WatchTaskResponse>, Status> {
        loop {
            self.follower.check_access()?;
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(WatchTaskResponse { event: Some(event) }));
            }
            if self.over {
                return Ok(None);
            }
            self.follower.looks();
            if self.look().await? {
                continue;
            }
            self.follower.news(Duration::ZERO, "the last offset").await?;
        }
    }

    /// Reads what is new. True when there may be more to do at once.
    async fn look(&mut self) -> Result<bool, Status> {
        let view = self.api.view(&self.task_id, &self.follower.caller).await?;
        let is_final = view.task.finished_at.is_some();
        let stored = view.task.output_bytes;
        let state = (view.task.state, view.task.epoch, view.task.cancel_requested);
        // The final state comes behind all output.
        if self.shown != Some(state) && (!is_final || self.shown.is_none()) {
            self.shown = Some(state);
            self.ready.push_back(watch_task_response::Event::Task(view.task.clone()));
        }
        // The task, which comes first, says what is gone.
        self.offset = self.offset.max(view.task.output_removed_bytes);
        if self.offset < stored {
            let chunks = tasks::output_from(&self.api.readers, &view, self.offset).await?;
            for chunk in chunks {
                self.offset = chunk.offset + chunk.data.len() as u64;
                self.ready.push_back(watch_task_response::Event::Output(chunk));
            }
        }
        if is_final && self.offset >= stored {
            if self.shown != Some(state) {
                self.shown = Some(state);
                self.ready.push_back(watch_task_response::Event::Task(view.task));
            }
            self.over = true;
        }
        Ok(!self.ready.is_empty() || self.over)
    }
}
