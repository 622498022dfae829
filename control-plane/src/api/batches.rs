//! `BatchService`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use lictor_proto::v1::batch_service_server::BatchService;
use lictor_proto::v1::{
    Batch, CancelBatchRequest, CancelBatchResponse, EndedTask, GetBatchRequest, GetBatchResponse, ListBatchesRequest,
    ListBatchesResponse, SubmitBatchRequest, SubmitBatchResponse, WatchBatchRequest, WatchBatchResponse,
    watch_batch_response,
};
use tonic::{Request, Response, Status};

use super::door::{caller, outside};
use super::follower::Follower;
use super::shown::shown;
use super::{Api, page_size, parse_page_token};
use crate::access::Caller;
use crate::engine::Command;
use crate::store::batches;
use crate::validate;

impl Api {
    async fn batch(&self, batch_id: &str, caller: &Caller) -> Result<Batch, Status> {
        let found = batches::view(&self.readers, batch_id).await?;
        // Somebody else's batch and no batch look the same.
        match found.filter(|view| caller.sees(&view.batch.scope)) {
            Some(view) => Ok(view.batch),
            None => Err(Status::not_found(format!("there is no batch with the id {}", validate::quoted(batch_id)))),
        }
    }
}

#[tonic::async_trait]
impl BatchService for Api {
    async fn submit_batch(
        &self,
        request: Request<SubmitBatchRequest>,
    ) -> Result<Response<SubmitBatchResponse>, Status> {
        let caller = caller(&request)?;
        let mut request = request.into_inner();
        let template = request.template.get_or_insert_default();
        let wanted = template.selector.as_ref().map_or("", |selector| selector.scope.as_str());
        let scope = caller.scope_for(wanted).ok_or_else(|| outside(&caller))?;
        if !scope.is_empty() {
            template.selector.get_or_insert_default().scope = scope;
        }
        let user = caller.user.clone();
        // Ten thousand hosts take some milliseconds to check: not on a thread that others wait for.
        let batch = tokio::task::spawn_blocking(move || validate::batch(request, user))
            .await
            .map_err(|_| Status::internal("the batch could not be checked"))??;
        let (batch, by) = (Box::new(batch), caller.clone());
        let batch_id = self.engine.ask(|reply| Command::SubmitBatch { batch, by, reply }).await?;
        Ok(Response::new(SubmitBatchResponse { batch: Some(self.batch(&batch_id, &caller).await?) }))
    }

    async fn get_batch(&self, request: Request<GetBatchRequest>) -> Result<Response<GetBatchResponse>, Status> {
        let caller = caller(&request)?;
        let batch = self.batch(&request.into_inner().batch_id, &caller).await?;
        Ok(Response::new(GetBatchResponse { batch: Some(batch) }))
    }

    async fn list_batches(
        &self,
        request: Request<ListBatchesRequest>,
    ) -> Result<Response<ListBatchesResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let before = parse_page_token(&request.page_token)?;
        let size = page_size(request.page_size, 50, 500);
        let mut views = batches::list(&self.readers, &caller.scope, before, size + 1).await?;
        let more = views.len() > size as usize;
        views.truncate(size as usize);
        let next_page_token = views.last().filter(|_| more).map(|last| last.seq.to_string()).unwrap_or_default();
        let batches = views.into_iter().map(|view| view.batch).collect();
        Ok(Response::new(ListBatchesResponse { batches, next_page_token }))
    }

    type WatchBatchStream = Pin<Box<dyn Stream<Item = Result<WatchBatchResponse, Status>> + Send>>;

    async fn watch_batch(
        &self,
        request: Request<WatchBatchRequest>,
    ) -> Result<Response<Self::WatchBatchStream>, Status> {
        let caller = caller(&request)?;
        let WatchBatchRequest { batch_id, from_ended } = request.into_inner();
        let follower = Follower::new(self, self.watchers.subscribe(&batch_id), caller)?;
        self.batch(&batch_id, &follower.caller).await?;
        let watch = Watch {
            api: self.clone(),
            batch_id,
            follower,
            seen: from_ended,
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

    async fn cancel_batch(
        &self,
        request: Request<CancelBatchRequest>,
    ) -> Result<Response<CancelBatchResponse>, Status> {
        let caller = caller(&request)?;
        let CancelBatchRequest { batch_id, reason } = request.into_inner();
        self.batch(&batch_id, &caller).await?;
        let reason = validate::reason(&reason);
        let (id, by) = (batch_id.clone(), caller.clone());
        self.engine.ask(|reply| Command::CancelBatch { batch_id: id, reason, by, reply }).await?;
        Ok(Response::new(CancelBatchResponse { batch: Some(self.batch(&batch_id, &caller).await?) }))
    }
}

/// One follower of one batch. It reads the database when it has sent what it read before: a slow one is only slow
/// itself.
struct Watch {
    api: Api,
    batch_id: String,
    follower: Follower<()>,
    /// Number of the last end that was sent.
    seen: u32,
    /// What was sent last of the batch itself.
    shown: Option<Batch>,
    ready: VecDeque<watch_batch_response::Event>,
    over: bool,
}

impl Watch {
    async fn next(&mut self) -> Result<Option<WatchBatchResponse>, Status> {
        loop {
            self.follower.check_access()?;
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(WatchBatchResponse { event: Some(event) }));
            }
            if self.over {
                return Ok(None);
            }
            self.follower.looks();
            if self.look().await? {
                continue;
            }
            self.follower.news(BREATH, "the last end").await?;
        }
    }

    /// Reads what is new. True when there may be more to do at once.
    async fn look(&mut self) -> Result<bool, Status> {
        let batch = self.api.batch(&self.batch_id, &self.follower.caller).await?;
        let is_final = batch.finished_at.is_some();
        let ended = batches::ended(&self.api.readers, &self.batch_id, self.seen).await?;
        let complete = ended.is_empty();
        // The finished batch comes behind all of its tasks.
        if self.shown.as_ref() != Some(&batch) && (!is_final || complete || self.shown.is_none()) {
            self.shown = Some(batch.clone());
            self.ready.push_back(watch_batch_response::Event::Batch(batch));
        }
        for (number, view) in ended {
            self.seen = number;
            let ended = EndedTask { number, task: Some(shown(view.task, &self.follower.caller)) };
            self.ready.push_back(watch_batch_response::Event::Ended(ended));
        }
        if is_final && complete {
            self.over = true;
        } else if is_final {
            // Said once more at the end.
            self.shown = None;
        }
        Ok(!self.ready.is_empty() || self.over)
    }
}

/// Batches change many times a second; nobody reads as fast.
const BREATH: Duration = Duration::from_millis(100);
